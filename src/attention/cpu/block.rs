//! One block of queries against all keys of its sequence, while it is in cache.

use std::ops::Range;

use super::{DropoutMask, Geometry, Head, Span};
use crate::{
    cpu::{
        lanes,
        matrix::{Matrix, MatrixMut},
    },
    position::RelativeIndex,
};

/// Scores that a block may hold: 128 KB, a quarter of a usual second-level cache.
const BLOCK_SCORES: usize = 32 * 1024;

/// Queries in a block: enough for an efficient product, few enough for the cache.
pub(super) fn block_size(length: usize) -> usize {
    (BLOCK_SCORES / length).clamp(16, 64)
}

/// Which rows of the position table some queries of a sequence reach.
pub(super) struct Reach<'a> {
    index: &'a RelativeIndex,
    length: usize,
    /// The reached rows.
    pub rows: Range<usize>,
}

/// Where one query's pairs stand in the two tables of position scores.
pub(super) struct QueryReach<'a> {
    window: &'a [u32],
    rows: Range<usize>,
    /// The keys whose elements by query are consecutive.
    near: Range<usize>,
}

impl<'a> Reach<'a> {
    pub fn new(index: &'a RelativeIndex, queries: &Range<usize>, length: usize) -> Self {
        // Rows never fall as the distance grows: the first query and the last key have the lowest, the last query and the
        // first key the highest.
        let lowest = index.window(queries.start)[length - 1] as usize;
        let highest = index.window(queries.end - 1)[0] as usize;
        Self { index, length, rows: lowest..highest + 1 }
    }

    pub fn query(&self, query: usize) -> QueryReach<'a> {
        let near = self.index.consecutive_keys(query, self.length);
        QueryReach { window: &self.index.window(query)[..self.length], rows: self.rows.clone(), near }
    }
}

impl QueryReach<'_> {
    /// The keys whose elements by query are consecutive, and their elements.
    #[inline(always)]
    pub fn near(&self) -> (Range<usize>, Range<usize>) {
        let first = self.window.get(self.near.start).map_or(0, |row| self.rows.end - 1 - *row as usize);
        (self.near.clone(), first..first + self.near.len())
    }

    /// The other keys, and their elements in the query's row of Qc Kr^T, last position first.
    #[inline(always)]
    pub fn far(&self) -> impl Iterator<Item = (usize, usize)> {
        let keys = (0..self.near.start).chain(self.near.end..self.window.len());
        keys.map(|key| (key, self.rows.end - 1 - self.window[key] as usize))
    }

    /// Each key's element in Qr Kc^T, [rows, keys].
    #[inline(always)]
    pub fn by_key(&self) -> impl Iterator<Item = usize> {
        let (first, keys) = (self.rows.start, self.window.len());
        self.window.iter().enumerate().map(move |(key, row)| (*row as usize - first) * keys + key)
    }
}

/// Adds Qc . Kr and Qr . Kc to the scores of a block, [queries, length].
///
/// `by_query` is Qc Kr^T of the block with its columns reversed, [queries, rows]; `by_key` is Qr Kc^T, [rows, length].
fn add_position_terms(
    scores: &mut [f32],
    queries: Range<usize>,
    by_query: Option<(&[f32], &Reach<'_>)>,
    by_key: Option<(&[f32], &Reach<'_>)>,
    length: usize,
) {
    for (row, scores) in scores.chunks_exact_mut(length).enumerate() {
        let query = queries.start + row;
        if let Some((table, reach)) = by_query {
            let width = reach.rows.len();
            let (terms, reach) = (&table[row * width..][..width], reach.query(query));
            let (keys, elements) = reach.near();
            for (score, term) in scores[keys].iter_mut().zip(&terms[elements]) {
                *score += term;
            }
            for (key, element) in reach.far() {
                scores[key] += terms[element];
            }
        }
        if let Some((table, reach)) = by_key {
            for (score, element) in scores.iter_mut().zip(reach.query(query).by_key()) {
                *score += table[element];
            }
        }
    }
}

/// Turns a row of scores into exponentials and returns the sum: the probabilities are the exponentials over it.
#[inline(always)]
pub(super) fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    let highest = lanes::maximum(scores);
    for score in scores.iter_mut() {
        *score = lanes::exp((*score - highest) * scale);
    }
    lanes::sum(scores, |_, value| value)
}

/// The factors of dropout: 0, or 1 / (1 - p), for a row of probabilities.
pub(super) struct DropoutRow {
    threshold: u32,
    factor: f32,
    seed: u32,
}

impl DropoutMask {
    /// The factors of one head's probabilities of one query, which is row `token` of the batch.
    pub(super) fn row(self, head: usize, token: usize) -> DropoutRow {
        DropoutRow {
            threshold: (self.probability * f64::from(u32::MAX)) as u32,
            factor: (1.0 / (1.0 - self.probability)) as f32,
            seed: mix(mix(self.seed ^ mix(head as u32 + 1)) ^ token as u32),
        }
    }
}

impl DropoutRow {
    /// The factor of a key.
    #[inline(always)]
    pub fn factor(&self, key: usize) -> f32 {
        let random = mix(self.seed ^ (key as u32).wrapping_mul(0x9E37_79B9));
        if random < self.threshold { 0.0 } else { self.factor }
    }
}

/// A bijection of 32 bits in which every input bit moves every output bit (xorshift and multiply; constants found by search
/// in the `hash-prospector` project).
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Buffers of one thread, kept from task to task.
#[derive(Default)]
pub(super) struct Workspace {
    /// Qr Kc^T, [rows, length].
    by_key: Vec<f32>,
    /// Qc Kr^T of the block, columns reversed, [queries, rows].
    by_query: Vec<f32>,
    /// The block's scores, [queries, length].
    pub scores: Vec<f32>,
}

/// One head of one sequence, with its table of position scores by key.
pub(super) struct Task<'a, 'w> {
    geometry: &'a Geometry<'a>,
    pub head: Head<'a>,
    length: usize,
    reach: Option<Reach<'a>>,
    workspace: &'w mut Workspace,
}

impl<'a, 'w> Task<'a, 'w> {
    /// Prepares the blocks of `queries`.
    pub fn new(
        geometry: &'a Geometry<'a>,
        head: Head<'a>,
        span: Span,
        queries: &Range<usize>,
        workspace: &'w mut Workspace,
    ) -> Self {
        let length = span.length;
        let reach = geometry.index.map(|index| Reach::new(index, queries, length));
        if let (Some(positions), Some(reach)) = (head.position_query, &reach) {
            let rows = reach.rows.len();
            let table = resized(&mut workspace.by_key, rows * length);
            let positions = positions.rows(reach.rows.clone());
            MatrixMut::new(table, 0, rows, length, length).product(positions, head.key.transposed(), false);
        }
        Self { geometry, head, length, reach, workspace }
    }

    /// The rows that all its queries reach, and those of a block of them.
    pub fn reach(&self, queries: &Range<usize>) -> Option<(&Reach<'a>, Reach<'a>)> {
        let whole = self.reach.as_ref()?;
        Some((whole, Reach::new(whole.index, queries, self.length)))
    }

    /// Makes the scores of a block, not yet scaled, in `workspace.scores`.
    pub fn scores(&mut self, queries: Range<usize>) -> &mut [f32] {
        let (rows, length) = (queries.len(), self.length);
        let query = self.head.query.rows(queries.clone());
        let block = self.geometry.index.map(|index| Reach::new(index, &queries, length));
        let Workspace { by_key, by_query, scores } = &mut *self.workspace;

        let scores = resized(scores, rows * length);
        MatrixMut::new(scores, 0, rows, length, length).product(query, self.head.key.transposed(), false);
        let by_query = self.head.position_key.zip(block.as_ref()).map(|(positions, reach)| {
            let width = reach.rows.len();
            let table = resized(by_query, rows * width);
            let positions = positions.rows(reach.rows.clone()).reversed();
            MatrixMut::new(table, 0, rows, width, width).product(query, positions.transposed(), false);
            (&*table, reach)
        });
        let by_key = self.head.position_query.zip(self.reach.as_ref()).map(|(_, reach)| (&by_key[..], reach));
        lanes::vectorized(|| add_position_terms(scores, queries, by_query, by_key, length));
        scores
    }
}

/// The first `length` elements of a buffer that grows when it must.
pub(super) fn resized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// A row-major matrix over a whole slice.
pub(super) fn dense(data: &[f32], rows: usize, columns: usize) -> Matrix<'_> {
    Matrix::new(data, 0, rows, columns, columns)
}
