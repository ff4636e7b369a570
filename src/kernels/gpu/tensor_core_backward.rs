//! Tensor cores, backward: gradients of the queries' side, and of the keys'.

#![allow(clippy::manual_is_multiple_of, reason = "the language of kernels has fewer methods and operators than Rust")]

use cubecl::{cube, prelude::*};

use super::{
    fragments::{FRAGMENT, Line, PLANE, Pair, as_left, left_of, no_sums, product, stage, stride, sum_of_row},
    shared::{Numbers, Variant, dropout_factor, position, random_row, this_block, tokens},
    tensor_core::{DISTINCT, MIXED, SAME, own_rows, position_terms, reach, row_of_pair, terms_of},
};

/// No run has begun.
const NONE: u32 = u32::MAX;

/// Ends a run: writes its sum, where there is one and its row exists.
#[cube]
fn end_run<F: Float>(d_term: &mut Tensor<F>, at: usize, run: u32, sum: f32, live: bool) {
    if live && run != NONE {
        d_term[at + run as usize] = F::cast_from(sum);
    }
}

/// Gradients of one side, as in [`portable`](super::portable::backward).
///
/// The sums over runs of one row of the position table are kept by the first 16 units of a plane, a row each. Where a tile's
/// distances have one row, only the sums of its rows reach them; where each has its own, nothing is to be summed.
#[cube(launch)]
pub fn backward<F: Float>(
    own: &Tensor<Vector<F, Line>>,
    own_value: &Tensor<Vector<F, Line>>,
    other: &Tensor<Vector<F, Line>>,
    other_value: &Tensor<Vector<F, Line>>,
    own_term: &Tensor<F>,
    other_term: &Tensor<F>,
    index: &Tensor<u32>,
    lse: &Tensor<f32>,
    delta: &Tensor<f32>,
    d_own: &mut Tensor<Vector<F, Pair>>,
    d_value: &mut Tensor<Vector<F, Pair>>,
    d_term: &mut Tensor<F>,
    numbers: Numbers,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
    #[define(F)] _dtype: ElemType,
) {
    let size = comptime!(variant.head_size);
    let tile = comptime!(variant.tile);
    let (own_has, _) = comptime!(terms_of(variant, keys));
    let (head, heads) = (CUBE_POS_Y as usize, numbers.heads as usize);
    let table = numbers.rows as usize;
    let (lane, plane) = (UNIT_POS as usize % PLANE, UNIT_POS as usize / PLANE);
    let block = this_block(index);
    let rows = own_rows(index, &block, &numbers, keys, variant);
    let column = lane % 4 * 2;
    let (own_tokens, _) = tokens(&numbers, keys);

    let lines = comptime!(stride(size));
    let mut states = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(variant.own * lines), 16usize);
    let mut values = Shared::<[Vector<F, Line>]>::new_aligned_slice(comptime!(variant.own * lines), 16usize);
    stage(own, &mut states, block.own_start, block.own_end, heads, comptime!(variant.own), variant);
    stage(own_value, &mut values, block.own_start, block.own_end, heads, comptime!(variant.own), variant);
    sync_cube();
    let own = left_of(&states, plane * FRAGMENT, size);
    let value = left_of(&values, plane * FRAGMENT, size);

    // The scores' gradients of a plane, for the units that sum runs; a column more, so that rows lie in different banks.
    let width = comptime!(variant.tile + 1);
    let mut spread = Shared::<[f32]>::new_slice(comptime!(variant.own * width));
    let spread_at = plane * comptime!(FRAGMENT * width);
    let walker = min(block.own_start + plane * FRAGMENT + lane % FRAGMENT, block.own_end - 1);
    let walks = lane < FRAGMENT && block.own_start + plane * FRAGMENT + lane % FRAGMENT < block.own_end;
    let walker_position = position(index, walker, block.first_key, &numbers, keys, variant.placed);
    let walker_at = (head * own_tokens + walker) * table;
    let mut run = NONE.runtime();
    let mut run_sum = 0.0f32;

    let mut sums = no_sums(comptime!(size / 8));
    let mut value_sums = no_sums(comptime!(size / 8));
    let mut start = block.other_start;
    while start < block.other_end {
        sync_cube();
        stage(other, &mut states, start, block.other_end, heads, tile, variant);
        stage(other_value, &mut values, start, block.other_end, heads, tile, variant);
        sync_cube();
        let mut scores = no_sums(comptime!(tile / 8));
        product(&own, &states, &mut scores, size, tile, true);
        let kind =
            position_terms(&mut scores, own_term, other_term, index, &rows, &block, start, &numbers, keys, variant);
        let mut gradients = no_sums(comptime!(tile / 8));
        product(&value, &values, &mut gradients, size, tile, true);

        // Scores become probabilities as they are multiplied with the values, gradients those of the scores.
        #[unroll]
        for n in 0..comptime!(tile / 8) {
            #[unroll]
            for e in 0..2usize {
                let there = start + n * 8 + column + e;
                let other = min(there, block.other_end - 1);
                #[unroll]
                for half in 0..2usize {
                    let token = rows.token[half] as usize;
                    let (query, key) = if comptime!(keys) { (other, token) } else { (token, other) };
                    let score = scores.index(n)[half].extract(e);
                    let probability = (score - lse[query * heads + head]).exp();
                    let mut dropped = probability;
                    let mut d_probability = gradients.index(n)[half].extract(e);
                    if comptime!(variant.dropout) {
                        let random = random_row(&numbers, head, query);
                        let factor = dropout_factor(random, key - block.first_key, &numbers);
                        dropped *= factor;
                        d_probability *= factor;
                    }
                    let d_score = probability * (d_probability - delta[query * heads + head]) * numbers.scale;
                    let block_scores = scores.index_mut(n);
                    let mut pair = block_scores[half];
                    pair.insert(e, dropped);
                    block_scores[half] = pair;
                    let block_gradients = gradients.index_mut(n);
                    let mut pair = block_gradients[half];
                    pair.insert(e, d_score);
                    block_gradients[half] = pair;
                }
            }
        }
        let left = as_left::<F>(&gradients, comptime!(tile / 8));
        product(&left, &states, &mut sums, size, tile, false);
        if comptime!(keys) {
            let left = as_left::<F>(&scores, comptime!(tile / 8));
            product(&left, &values, &mut value_sums, size, tile, false);
        }

        if comptime!(own_has) {
            let (first, _) = reach(index, &block, start, &numbers, keys, variant);
            if kind == DISTINCT {
                end_run(d_term, walker_at, run, run_sum, walks);
                run = NONE.runtime();
                let base = index[first] + first as u32 - numbers.rows_at;
                #[unroll]
                for n in 0..comptime!(tile / 8) {
                    #[unroll]
                    for e in 0..2usize {
                        let other = start + n * 8 + column + e;
                        #[unroll]
                        for half in 0..2usize {
                            if rows.live[half] == 1 && other < block.other_end {
                                let other_position =
                                    position(index, other, block.first_key, &numbers, comptime!(!keys), variant.placed);
                                let own_position = rows.position[half] as usize;
                                let row =
                                    row_of_pair(index, own_position, other_position, base, &numbers, DISTINCT, keys);
                                let at = (head * own_tokens + rows.token[half] as usize) * table;
                                d_term[at + row] = F::cast_from(gradients.index(n)[half].extract(e));
                            }
                        }
                    }
                }
            } else if kind == SAME {
                #[unroll]
                for half in 0..2usize {
                    let mut sum = 0.0f32;
                    #[unroll]
                    for n in 0..comptime!(tile / 8) {
                        let pair = gradients.index(n)[half];
                        sum += pair.extract(0usize) + pair.extract(1usize);
                    }
                    let sum = sum_of_row(sum);
                    if lane % 4 == 0 {
                        spread[spread_at + half * 8 + lane / 4] = sum;
                    }
                }
                sync_plane();
                let row = index[first];
                if run != row {
                    end_run(d_term, walker_at, run, run_sum, walks);
                    run = row;
                    run_sum = 0.0f32;
                }
                run_sum += spread[spread_at + lane % FRAGMENT];
                sync_plane();
            } else {
                #[unroll]
                for n in 0..comptime!(tile / 8) {
                    #[unroll]
                    for e in 0..2usize {
                        #[unroll]
                        for half in 0..2usize {
                            let at = spread_at + (half * 8 + lane / 4) * width + n * 8 + column + e;
                            spread[at] = gradients.index(n)[half].extract(e);
                        }
                    }
                }
                sync_plane();
                let count = min(tile, block.other_end - start);
                for at in 0..count {
                    let other_position =
                        position(index, start + at, block.first_key, &numbers, comptime!(!keys), variant.placed);
                    let row = row_of_pair(index, walker_position, other_position, 0u32, &numbers, MIXED, keys) as u32;
                    if run != row {
                        end_run(d_term, walker_at, run, run_sum, walks);
                        run = row;
                        run_sum = 0.0f32;
                    }
                    run_sum += spread[spread_at + (lane % FRAGMENT) * width + at];
                }
                sync_plane();
            }
        }
        start += tile;
    }

    if comptime!(own_has) {
        end_run(d_term, walker_at, run, run_sum, walks);
    }
    #[unroll]
    for half in 0..2usize {
        if rows.live[half] == 1 {
            let at = (rows.token[half] as usize * heads + head) * size + column;
            #[unroll]
            for n in 0..comptime!(size / 8) {
                d_own[(at + n * 8) / 2] = Vector::cast_from(sums.index(n)[half]);
                if comptime!(keys) {
                    d_value[(at + n * 8) / 2] = Vector::cast_from(value_sums.index(n)[half]);
                }
            }
        }
    }
}
