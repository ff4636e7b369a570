//! What all kernels of attention share: the numbers of a launch, the rows that a cube owns, and dropout.

use cubecl::{cube, prelude::*};

use crate::kernels::cpu::dropout::{MULTIPLIERS, SHIFTS, SPREAD};

/// What is fixed when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Size of a head (d).
    pub head_size: usize,
    /// Rows of queries or keys that a cube owns.
    pub own: usize,
    /// Rows of the other side in shared memory at a time.
    pub tile: usize,
    /// Whether there is the content-to-position term.
    pub c2p: bool,
    /// Whether there is the position-to-content term.
    pub p2c: bool,
    /// Whether queries say where they are, instead of each token having one.
    pub placed: bool,
    /// Whether probabilities are dropped.
    pub dropout: bool,
}

/// The numbers of a launch.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Numbers {
    /// Number of heads.
    pub heads: u32,
    /// Number of rows of the query.
    pub query_tokens: u32,
    /// Number of rows of the key.
    pub key_tokens: u32,
    /// Number of rows of the position tables (R).
    pub rows: u32,
    /// Where the index has the row of distance 0; that of distance i - j is j - i further on.
    pub rows_at: u32,
    /// Where the index has the positions of the queries.
    pub positions_at: u32,
    /// 1 if neighbouring distances have the same row or rows that follow each other, else 0.
    pub unit_steps: u32,
    /// 1 / sqrt(d n)
    pub scale: f32,
    /// The seed of dropout.
    pub seed: u32,
    /// What dropout adds to the number of a head.
    pub first_head: u32,
    /// Random bits below this number drop.
    pub threshold: u32,
    /// The factor of what is kept.
    pub keep: f32,
}

/// The rows that a cube owns, and those that it goes through.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Block {
    pub own_start: usize,
    pub own_end: usize,
    pub other_start: usize,
    pub other_end: usize,
    /// The sequence's first key, from which positions count.
    pub first_key: usize,
}

/// Numbers a block in the index.
pub(super) const BLOCK: usize = 5;

/// The block of this cube.
#[cube]
pub(super) fn this_block(index: &Tensor<u32>) -> Block {
    let at = CUBE_POS_X as usize * BLOCK;
    Block {
        own_start: index[at] as usize,
        own_end: index[at + 1] as usize,
        other_start: index[at + 2] as usize,
        other_end: index[at + 3] as usize,
        first_key: index[at + 4] as usize,
    }
}

/// The position of a query in its sequence.
#[cube]
pub(super) fn query_position(
    index: &Tensor<u32>,
    token: usize,
    first_key: usize,
    numbers: &Numbers,
    #[comptime] placed: bool,
) -> usize {
    if comptime!(placed) { index[numbers.positions_at as usize + token] as usize } else { token - first_key }
}

/// The position of a key or a query in its sequence.
#[cube]
pub(super) fn position(
    index: &Tensor<u32>,
    token: usize,
    first_key: usize,
    numbers: &Numbers,
    #[comptime] of_key: bool,
    #[comptime] placed: bool,
) -> usize {
    if comptime!(of_key) { token - first_key } else { query_position(index, token, first_key, numbers, placed) }
}

/// Tokens of the owned side and of the other, where keys are owned or queries.
#[cube]
pub(super) fn tokens(numbers: &Numbers, #[comptime] keys: bool) -> (usize, usize) {
    if comptime!(keys) {
        (numbers.key_tokens as usize, numbers.query_tokens as usize)
    } else {
        (numbers.query_tokens as usize, numbers.key_tokens as usize)
    }
}

/// idx(i, j): the row of the position tables for the query at position i and the key at position j.
#[cube]
pub(super) fn table_row(index: &Tensor<u32>, i: usize, j: usize, numbers: &Numbers) -> usize {
    index[numbers.rows_at as usize + j - i] as usize
}

/// The CPU kernels' bijection of 32 bits, bit for bit.
#[cube]
fn mix(bits: u32) -> u32 {
    let a = bits ^ (bits >> comptime!(SHIFTS[0]));
    let b = a * comptime!(MULTIPLIERS[0]);
    let c = b ^ (b >> comptime!(SHIFTS[1]));
    let d = c * comptime!(MULTIPLIERS[1]);
    d ^ (d >> comptime!(SHIFTS[2]))
}

/// The seed of a row of random bits of a part, as the CPU kernels'.
#[cube]
pub(super) fn row_of_bits(seed: u32, part: u32, row: u32) -> u32 {
    mix(mix(seed ^ mix(part + 1)) ^ row)
}

/// The factor of dropout for a column: 0, or 1 / (1 - p).
#[cube]
pub(super) fn kept(row: u32, column: u32, threshold: u32, keep: f32) -> f32 {
    let bits = mix(row ^ (column * comptime!(SPREAD)));
    select(bits < threshold, 0.0f32, keep)
}

/// The seed of one query's row of random bits.
#[cube]
pub(super) fn random_row(numbers: &Numbers, head: usize, query: usize) -> u32 {
    row_of_bits(numbers.seed, head as u32 + numbers.first_head, query as u32)
}

/// The factor of dropout for a key at a position.
#[cube]
pub(super) fn dropout_factor(row: u32, key: usize, numbers: &Numbers) -> f32 {
    kept(row, key as u32, numbers.threshold, numbers.keep)
}

/// The sum of a number over all units of a cube, which all get it. Barriers: every unit has to come here.
///
/// # Shapes
/// - parts: one for each unit at least
#[cube]
pub(super) fn cube_sum(value: f32, parts: &mut Shared<[f32]>, #[comptime] planes: bool) -> f32 {
    let mut own = value;
    let mut at = UNIT_POS as usize;
    let mut count = CUBE_DIM as usize;
    let mut writes = true;
    if comptime!(planes) {
        own = plane_sum(value);
        at = (UNIT_POS / PLANE_DIM) as usize;
        count = (CUBE_DIM / PLANE_DIM) as usize;
        writes = UNIT_POS_PLANE == 0;
    }
    // Others may still read the last sum.
    sync_cube();
    if writes {
        parts[at] = own;
    }
    sync_cube();
    let mut total = 0.0f32;
    for part in 0..count {
        total += parts[part];
    }
    total
}
