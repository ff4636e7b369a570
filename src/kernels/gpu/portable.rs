//! The kernels for every GPU and every type: one unit owns a row and goes through the rows of the other side, which lie in shared
//! memory tile by tile. Sums are f32.

use cubecl::{cube, prelude::*};

use super::shared::{Numbers, Variant, dropout_factor, query_position, random_row, table_row, this_block, tokens};

/// Scores that are taken at once, before the running maximum moves.
const GROUP: usize = 4;

/// Copies the columns of one head of some rows into shared memory.
///
/// # Shapes
/// - source: [tokens, heads * head_size]
/// - tile: [tile, head_size]
#[cube]
fn stage<F: Float>(
    source: &Tensor<F>,
    tile: &mut Shared<[F]>,
    start: usize,
    end: usize,
    heads: usize,
    #[comptime] variant: Variant,
) {
    let size = comptime!(variant.head_size);
    let mut at = UNIT_POS as usize;
    while at < comptime!(variant.tile * variant.head_size) {
        let token = start + at / size;
        if token < end {
            tile[at] = source[(token * heads + CUBE_POS_Y as usize) * size + at % size];
        }
        at += comptime!(variant.own);
    }
}

/// The numbers of one head of one row, as f32.
#[cube]
fn row_of<F: Float>(source: &Tensor<F>, token: usize, heads: usize, #[comptime] size: usize) -> Array<f32> {
    let at = (token * heads + CUBE_POS_Y as usize) * size;
    let mut row = Array::<f32>::new(size);
    #[unroll]
    for c in 0..size {
        row[c] = f32::cast_from(source[at + c]);
    }
    row
}

#[cube]
fn zeros(#[comptime] size: usize) -> Array<f32> {
    let mut row = Array::<f32>::new(size);
    #[unroll]
    for c in 0..size {
        row[c] = 0.0f32;
    }
    row
}

#[cube]
fn dot<F: Float>(row: &Array<f32>, tile: &Shared<[F]>, at: usize, #[comptime] size: usize) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for c in 0..size {
        sum += row[c] * f32::cast_from(tile[at + c]);
    }
    sum
}

/// sum += factor * tile[at..]
#[cube]
fn accumulate<F: Float>(sum: &mut Array<f32>, factor: f32, tile: &Shared<[F]>, at: usize, #[comptime] size: usize) {
    #[unroll]
    for c in 0..size {
        sum[c] += factor * f32::cast_from(tile[at + c]);
    }
}

#[cube]
fn store<F: Float>(row: &Array<f32>, factor: f32, output: &mut Tensor<F>, at: usize, #[comptime] size: usize) {
    #[unroll]
    for c in 0..size {
        output[at + c] = F::cast_from(row[c] * factor);
    }
}

/// Context, and the logarithm of each softmax's sum.
///
/// # Shapes
/// - query, context: [query_tokens, heads * head_size]; key, value: [key_tokens, heads * head_size]
/// - c2p: [heads, query_tokens, rows]; p2c: [heads, key_tokens, rows]
/// - lse: [query_tokens, heads]
#[cube(launch)]
pub fn forward<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    c2p: &Tensor<F>,
    p2c: &Tensor<F>,
    index: &Tensor<u32>,
    context: &mut Tensor<F>,
    lse: &mut Tensor<f32>,
    numbers: Numbers,
    #[comptime] variant: Variant,
    #[define(F)] _dtype: ElemType,
) {
    let size = comptime!(variant.head_size);
    let (head, heads) = (CUBE_POS_Y as usize, numbers.heads as usize);
    let rows = numbers.rows as usize;
    let block = this_block(index);
    // Units beyond the last row repeat it, and write nothing.
    let token = min(block.own_start + UNIT_POS as usize, block.own_end - 1);
    let i = query_position(index, token, block.first_key, &numbers, variant.placed);
    let random = random_row(&numbers, head, token);
    let c2p_at = (head * numbers.query_tokens as usize + token) * rows;
    let p2c_at = head * numbers.key_tokens as usize;

    let own = row_of(query, token, heads, size);
    let mut sum = zeros(size);
    let mut most = f32::new(-1.0e30);
    let mut total = 0.0f32;
    let mut keys = Shared::<[F]>::new_slice(comptime!(variant.tile * size));
    let mut values = Shared::<[F]>::new_slice(comptime!(variant.tile * size));

    let mut start = block.other_start;
    while start < block.other_end {
        sync_cube();
        stage(key, &mut keys, start, block.other_end, heads, variant);
        stage(value, &mut values, start, block.other_end, heads, variant);
        sync_cube();
        let count = min(comptime!(variant.tile), block.other_end - start);
        let mut first = 0usize;
        while first < count {
            let mut scores = Array::<f32>::new(GROUP);
            let before = most;
            #[unroll]
            for g in 0..GROUP {
                let at = min(first + g, count - 1);
                let other = start + at;
                let mut score = dot(&own, &keys, at * size, size);
                if comptime!(variant.c2p || variant.p2c) {
                    let row = table_row(index, i, other - block.first_key, &numbers);
                    if comptime!(variant.c2p) {
                        score += f32::cast_from(c2p[c2p_at + row]);
                    }
                    if comptime!(variant.p2c) {
                        score += f32::cast_from(p2c[(p2c_at + other) * rows + row]);
                    }
                }
                score = select(first + g < count, score * numbers.scale, f32::new(-1.0e30));
                scores[g] = score;
                most = max(most, score);
            }
            let shrink = (before - most).exp();
            total *= shrink;
            #[unroll]
            for c in 0..size {
                sum[c] *= shrink;
            }
            #[unroll]
            for g in 0..GROUP {
                let at = min(first + g, count - 1);
                let mut probability = (scores[g] - most).exp();
                total += probability;
                if comptime!(variant.dropout) {
                    probability *= dropout_factor(random, start + at - block.first_key, &numbers);
                }
                accumulate(&mut sum, probability, &values, at * size, size);
            }
            first += GROUP;
        }
        start += comptime!(variant.tile);
    }
    if block.own_start + (UNIT_POS as usize) < block.own_end {
        store(&sum, 1.0f32 / total, context, (token * heads + head) * size, size);
        lse[token * heads + head] = most + total.ln();
    }
}

/// Gradients of one side, without atomics: a unit owns a query (dQ and dC2P) or a key (dK, dV and dP2C).
///
/// Along the rows of the other side the row of the position table never turns back, so that a unit sums its pairs until the
/// row changes, and writes each row once. Rows that no pair has are left as they are: zero them before.
///
/// # Shapes
/// - own, own_value, other, other_value: query and gradient of the context, or key and value, [tokens, heads * head_size]
/// - own_term, other_term: c2p and p2c, [heads, tokens, rows] of that side
/// - lse, delta (of each query, the sum of context times its gradient): [query_tokens, heads]
#[cube(launch)]
pub fn backward<F: Float>(
    own: &Tensor<F>,
    own_value: &Tensor<F>,
    other: &Tensor<F>,
    other_value: &Tensor<F>,
    own_term: &Tensor<F>,
    other_term: &Tensor<F>,
    index: &Tensor<u32>,
    lse: &Tensor<f32>,
    delta: &Tensor<f32>,
    d_own: &mut Tensor<F>,
    d_value: &mut Tensor<F>,
    d_term: &mut Tensor<F>,
    numbers: Numbers,
    #[comptime] keys: bool,
    #[comptime] variant: Variant,
    #[define(F)] _dtype: ElemType,
) {
    let size = comptime!(variant.head_size);
    let (own_has, other_has) = comptime!(if keys { (variant.p2c, variant.c2p) } else { (variant.c2p, variant.p2c) });
    let (head, heads) = (CUBE_POS_Y as usize, numbers.heads as usize);
    let rows = numbers.rows as usize;
    let block = this_block(index);
    let live = block.own_start + (UNIT_POS as usize) < block.own_end;
    let token = min(block.own_start + UNIT_POS as usize, block.own_end - 1);
    let (own_tokens, other_tokens) = tokens(&numbers, keys);
    let position = if comptime!(keys) {
        token - block.first_key
    } else {
        query_position(index, token, block.first_key, &numbers, variant.placed)
    };
    let own_random = random_row(&numbers, head, token);
    let own_lse = if comptime!(keys) { f32::new(0.0) } else { lse[token * heads + head] };
    let own_delta = if comptime!(keys) { f32::new(0.0) } else { delta[token * heads + head] };
    let term_at = (head * own_tokens + token) * rows;
    let other_at = head * other_tokens;

    let own = row_of(own, token, heads, size);
    let value = row_of(own_value, token, heads, size);
    let mut sum = zeros(size);
    let mut value_sum = zeros(size);
    let mut run = 0usize;
    let mut run_sum = 0.0f32;
    let mut states = Shared::<[F]>::new_slice(comptime!(variant.tile * size));
    let mut values = Shared::<[F]>::new_slice(comptime!(variant.tile * size));

    let mut start = block.other_start;
    while start < block.other_end {
        sync_cube();
        stage(other, &mut states, start, block.other_end, heads, variant);
        stage(other_value, &mut values, start, block.other_end, heads, variant);
        sync_cube();
        let count = min(comptime!(variant.tile), block.other_end - start);
        for at in 0..count {
            let other = start + at;
            let (query, key_position) =
                if comptime!(keys) { (other, position) } else { (token, other - block.first_key) };
            let mut score = dot(&own, &states, at * size, size);
            let mut row = 0usize;
            if comptime!(variant.c2p || variant.p2c) {
                let query_position = if comptime!(keys) {
                    query_position(index, query, block.first_key, &numbers, variant.placed)
                } else {
                    position
                };
                row = table_row(index, query_position, key_position, &numbers);
                if comptime!(own_has) {
                    score += f32::cast_from(own_term[term_at + row]);
                }
                if comptime!(other_has) {
                    score += f32::cast_from(other_term[(other_at + other) * rows + row]);
                }
            }
            let (lse, delta) = if comptime!(keys) {
                (lse[query * heads + head], delta[query * heads + head])
            } else {
                (own_lse, own_delta)
            };
            let probability = (score * numbers.scale - lse).exp();
            let mut d_probability = dot(&value, &values, at * size, size);
            let mut dropped = probability;
            if comptime!(variant.dropout) {
                let random = if comptime!(keys) { random_row(&numbers, head, query) } else { own_random };
                let factor = dropout_factor(random, key_position, &numbers);
                d_probability *= factor;
                dropped *= factor;
            }
            let d_score = probability * (d_probability - delta) * numbers.scale;
            accumulate(&mut sum, d_score, &states, at * size, size);
            if comptime!(keys) {
                accumulate(&mut value_sum, dropped, &values, at * size, size);
            }
            if comptime!(own_has) {
                if row != run {
                    if live {
                        d_term[term_at + run] = F::cast_from(run_sum);
                    }
                    run = row;
                    run_sum = 0.0f32;
                }
                run_sum += d_score;
            }
        }
        start += comptime!(variant.tile);
    }
    if live {
        let at = (token * heads + head) * size;
        store(&sum, 1.0f32, d_own, at, size);
        if comptime!(keys) {
            store(&value_sum, 1.0f32, d_value, at, size);
        }
        if comptime!(own_has) {
            d_term[term_at + run] = F::cast_from(run_sum);
        }
    }
}
