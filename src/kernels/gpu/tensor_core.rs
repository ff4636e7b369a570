//! Tensor cores, forward: a plane owns 16 rows, a cube four planes; tiles of the other side lie in shared memory.
//!
//! What a pair of tokens adds by its distance is read in one of three ways, by what the tile's distances are like:
//! - all have one row of the position table (far from the diagonal): a vector a row and a vector a column;
//! - each has a row of its own, one after the other (near the diagonal): its place is computed;
//! - else it is looked up.

#![allow(
    clippy::manual_is_multiple_of,
    clippy::assign_op_pattern,
    reason = "the language of kernels has fewer methods and operators than Rust"
)]

use cubecl::{cube, prelude::*};

pub use super::tensor_core_backward::backward;
use super::{
    fragments::{
        FRAGMENT, Line, PLANE, Pair, Sums, as_left, largest_of_row, left_of, no_sums, product, stage, stride,
        sum_of_row,
    },
    shared::{
        Block, Numbers, Variant, dropout_factor, position, query_position, random_row, table_row, this_block, tokens,
    },
};

/// How the rows of the position table lie in a tile.
pub(super) const SAME: u32 = 0;
pub(super) const DISTINCT: u32 = 1;
pub(super) const MIXED: u32 = 2;

/// Which of [`SAME`], [`DISTINCT`] and [`MIXED`] the rows from `first` to `last` in the index are.
#[cube]
fn kind_of(index: &Tensor<u32>, first: usize, last: usize, numbers: &Numbers) -> u32 {
    // Along the index the row falls: from the largest distance, at `first`, to the smallest, at `last`.
    let (from, to) = (index[first], index[last]);
    let alone = index[first - 1] - index[last + 1] == (last + 2 - first) as u32;
    let other = select(alone && numbers.unit_steps != 0, DISTINCT, MIXED);
    select(from == to, SAME, other)
}

/// The two rows of the block that a unit holds: token, position, and whether it is there at all.
#[derive(CubeType)]
pub(super) struct OwnRows {
    pub token: Array<u32>,
    pub position: Array<u32>,
    pub live: Array<u32>,
}

#[cube]
pub(super) fn own_rows(
    index: &Tensor<u32>,
    block: &Block,
    numbers: &Numbers,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
) -> OwnRows {
    let (lane, plane) = (UNIT_POS as usize % PLANE, UNIT_POS as usize / PLANE);
    let mut rows = OwnRows { token: Array::new(2usize), position: Array::new(2usize), live: Array::new(2usize) };
    #[unroll]
    for half in 0..2usize {
        let row = block.own_start + plane * FRAGMENT + half * 8 + lane / 4;
        let token = min(row, block.own_end - 1);
        rows.token[half] = token as u32;
        rows.live[half] = select(row < block.own_end, 1u32, 0u32);
        rows.position[half] = position(index, token, block.first_key, numbers, keys, variant.placed) as u32;
    }
    rows
}

/// Where a plane's rows begin and end in the position table's index, against the tile's columns: (first, last).
#[cube]
pub(super) fn reach(
    index: &Tensor<u32>,
    block: &Block,
    start: usize,
    numbers: &Numbers,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
) -> (usize, usize) {
    let plane = UNIT_POS as usize / PLANE;
    let own_last = block.own_end - 1;
    let own_first = min(block.own_start + plane * FRAGMENT, own_last);
    let own_last = min(own_first + comptime!(FRAGMENT - 1), own_last);
    let other_last = min(start + comptime!(variant.tile - 1), block.other_end - 1);
    let at = numbers.rows_at as usize;
    if comptime!(keys) {
        let first = query_position(index, start, block.first_key, numbers, variant.placed);
        let last = query_position(index, other_last, block.first_key, numbers, variant.placed);
        (at + (own_first - block.first_key) - last, at + (own_last - block.first_key) - first)
    } else {
        let first = query_position(index, own_first, block.first_key, numbers, variant.placed);
        let last = query_position(index, own_last, block.first_key, numbers, variant.placed);
        (at + (start - block.first_key) - last, at + (other_last - block.first_key) - first)
    }
}

/// The row of the position table for a pair, in a tile of some kind.
#[cube]
pub(super) fn row_of_pair(
    index: &Tensor<u32>,
    own: usize,
    other: usize,
    base: u32,
    numbers: &Numbers,
    #[comptime] kind: u32,
    #[comptime] keys: bool,
) -> usize {
    let (query, key) = if comptime!(keys) { (other, own) } else { (own, other) };
    if comptime!(kind == SAME) {
        base as usize
    } else if comptime!(kind == DISTINCT) {
        (base + query as u32 - key as u32) as usize
    } else {
        table_row(index, query, key, numbers)
    }
}

/// Adds the position terms to a tile's scores, scales them, and puts those of rows that are not there out of reach.
#[cube]
fn add_terms<F: Float>(
    scores: &mut Sequence<Sums>,
    own_term: &Tensor<F>,
    other_term: &Tensor<F>,
    index: &Tensor<u32>,
    rows: &OwnRows,
    block: &Block,
    start: usize,
    base: u32,
    numbers: &Numbers,
    #[comptime] kind: u32,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
) {
    let (own_has, other_has) = comptime!(terms_of(variant, keys));
    let head = CUBE_POS_Y as usize;
    let table = numbers.rows as usize;
    let (own_tokens, other_tokens) = tokens(numbers, keys);
    let column = UNIT_POS as usize % 4 * 2;
    #[unroll]
    for n in 0..comptime!(variant.tile / 8) {
        #[unroll]
        for e in 0..2usize {
            let there = start + n * 8 + column + e;
            let other = min(there, block.other_end - 1);
            let other_position = position(index, other, block.first_key, numbers, comptime!(!keys), variant.placed);
            #[unroll]
            for half in 0..2usize {
                let sums = scores.index_mut(n);
                let mut score = sums[half].extract(e);
                if comptime!(own_has || other_has) {
                    let row =
                        row_of_pair(index, rows.position[half] as usize, other_position, base, numbers, kind, keys);
                    if comptime!(own_has) {
                        let at = (head * own_tokens + rows.token[half] as usize) * table;
                        score += f32::cast_from(own_term[at + row]);
                    }
                    if comptime!(other_has) {
                        score += f32::cast_from(other_term[(head * other_tokens + other) * table + row]);
                    }
                }
                score = select(there < block.other_end, score * numbers.scale, f32::new(-1.0e30));
                let mut pair = sums[half];
                pair.insert(e, score);
                sums[half] = pair;
            }
        }
    }
}

/// Whether the own side and the other have a position term.
pub(super) fn terms_of(variant: Variant, keys: bool) -> (bool, bool) {
    if keys { (variant.p2c, variant.c2p) } else { (variant.c2p, variant.p2c) }
}

/// Context, and the logarithm of each softmax's sum. Shapes as in [`portable`](super::portable::forward).
#[cube(launch)]
pub fn forward<F: Float>(
    query: &Tensor<Vector<F, Line>>,
    key: &Tensor<Vector<F, Line>>,
    value: &Tensor<Vector<F, Line>>,
    c2p: &Tensor<F>,
    p2c: &Tensor<F>,
    index: &Tensor<u32>,
    context: &mut Tensor<Vector<F, Pair>>,
    lse: &mut Tensor<f32>,
    numbers: Numbers,
    #[comptime] variant: Variant,
    #[define(F)] _dtype: ElemType,
) {
    let size = comptime!(variant.head_size);
    let tile = comptime!(variant.tile);
    let (head, heads) = (CUBE_POS_Y as usize, numbers.heads as usize);
    let plane = UNIT_POS as usize / PLANE;
    let block = this_block(index);
    let rows = own_rows(index, &block, &numbers, false, variant);
    let column = UNIT_POS as usize % 4 * 2;

    let lines = comptime!(stride(size));
    let mut keys = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(tile * lines), 16usize);
    let mut values = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(tile * lines), 16usize);
    // The queries pass through the keys' place: there are as many of them as keys in a tile.
    stage(query, &mut keys, block.own_start, block.own_end, heads, tile, variant);
    sync_cube();
    let own = left_of(&keys, plane * FRAGMENT, size);

    let mut sums = no_sums(comptime!(size / 8));
    let mut most = Array::<f32>::new(2usize);
    let mut total = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        most[half] = f32::new(-1.0e30);
        total[half] = 0.0f32;
    }
    let mut start = block.other_start;
    while start < block.other_end {
        sync_cube();
        stage(key, &mut keys, start, block.other_end, heads, tile, variant);
        stage(value, &mut values, start, block.other_end, heads, tile, variant);
        sync_cube();
        let mut scores = no_sums(comptime!(tile / 8));
        product(&own, &keys, &mut scores, size, tile, true);
        position_terms(&mut scores, c2p, p2c, index, &rows, &block, start, &numbers, false, variant);

        #[unroll]
        for half in 0..2usize {
            let mut high = most[half];
            #[unroll]
            for n in 0..comptime!(tile / 8) {
                let pair = scores.index(n)[half];
                high = max(high, max(pair.extract(0usize), pair.extract(1usize)));
            }
            high = largest_of_row(high);
            let shrink = (most[half] - high).exp();
            most[half] = high;
            let random = random_row(&numbers, head, rows.token[half] as usize);
            let mut sum = 0.0f32;
            #[unroll]
            for n in 0..comptime!(tile / 8) {
                let block_sums = scores.index_mut(n);
                let mut pair = block_sums[half];
                #[unroll]
                for e in 0..2usize {
                    let mut probability = (pair.extract(e) - high).exp();
                    sum += probability;
                    if comptime!(variant.dropout) {
                        let key = start + n * 8 + column + e - block.first_key;
                        probability *= dropout_factor(random, key, &numbers);
                    }
                    pair.insert(e, probability);
                }
                block_sums[half] = pair;
            }
            total[half] = total[half] * shrink + sum;
            #[unroll]
            for n in 0..comptime!(size / 8) {
                let block_sums = sums.index_mut(n);
                block_sums[half] = block_sums[half] * Vector::new(shrink);
            }
        }
        let probabilities = as_left::<F>(&scores, comptime!(tile / 8));
        product(&probabilities, &values, &mut sums, size, tile, false);
        start += tile;
    }

    #[unroll]
    for half in 0..2usize {
        let total = sum_of_row(total[half]);
        let token = rows.token[half] as usize;
        if rows.live[half] == 1 {
            #[unroll]
            for n in 0..comptime!(size / 8) {
                let pair = sums.index(n)[half] * Vector::new(1.0f32 / total);
                context[((token * heads + head) * size + n * 8 + column) / 2] = Vector::cast_from(pair);
            }
            if UNIT_POS % 4 == 0 {
                lse[token * heads + head] = most[half] + total.ln();
            }
        }
    }
}

/// [`add_terms`] by the kind of the tile.
#[cube]
pub(super) fn position_terms<F: Float>(
    scores: &mut Sequence<Sums>,
    own_term: &Tensor<F>,
    other_term: &Tensor<F>,
    index: &Tensor<u32>,
    rows: &OwnRows,
    block: &Block,
    start: usize,
    numbers: &Numbers,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
) -> u32 {
    let mut kind = MIXED.runtime();
    if comptime!(variant.c2p || variant.p2c) {
        let (first, last) = reach(index, block, start, numbers, keys, variant);
        kind = kind_of(index, first, last, numbers);
        if kind == SAME {
            let base = index[first];
            add_terms(scores, own_term, other_term, index, rows, block, start, base, numbers, SAME, keys, variant);
        } else if kind == DISTINCT {
            // The row of distance 0, if all distances had rows of their own.
            let base = index[first] + first as u32 - numbers.rows_at;
            add_terms(scores, own_term, other_term, index, rows, block, start, base, numbers, DISTINCT, keys, variant);
        } else {
            add_terms(scores, own_term, other_term, index, rows, block, start, 0u32, numbers, MIXED, keys, variant);
        }
    } else {
        add_terms(scores, own_term, other_term, index, rows, block, start, 0u32, numbers, SAME, keys, variant);
    }
    kind
}
