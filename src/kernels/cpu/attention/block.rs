//! One block of queries against all keys of its sequence, while it is in cache.

use std::ops::Range;

use super::{
    Geometry, Head, Sequence,
    positions::{Reach, add_position_terms},
};
use crate::isa::Isa;
use crate::kernels::cpu::{
    floats::Rounded,
    lanes,
    matrix::{Matrix, MatrixMut},
    panels::Panels,
    product::Start,
};

/// Scores that a block may hold: 128 KB, a quarter of a usual second-level cache.
const BLOCK_SCORES: usize = 32 * 1024;

/// Most queries in a block, a multiple of every tile's rows.
pub(super) const MOST_QUERIES: usize = 60;

/// Queries in a block: enough for an efficient product, few enough for the cache, and whole tiles.
pub(super) fn block_size(length: usize) -> usize {
    (BLOCK_SCORES / length / 12 * 12).clamp(12, MOST_QUERIES)
}

/// Turns a row of scores into exponentials and returns the sum: the probabilities are the exponentials over it.
#[inline(always)]
pub(super) fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    let highest = lanes::maximum(scores);
    for score in scores.iter_mut() {
        *score = lanes::exp((*score - highest) * scale);
    }
    lanes::sum(scores)
}

/// Buffers of one thread, kept from task to task. Products are of operands in `F`.
pub(super) struct Workspace<F: Rounded> {
    /// Kc^T, [head_size, length].
    keys: Panels<F>,
    /// Kr^T of the reached rows, columns reversed, [head_size, rows].
    positions: Panels<F>,
    /// A left operand, rounded.
    rounded: Vec<F::State>,
    /// Qr Kc^T, [rows, length].
    by_key: Vec<f32>,
    /// Qc Kr^T of the block, columns reversed, [queries, rows].
    by_query: Vec<f32>,
    /// The block's scores, [queries, length].
    scores: Vec<f32>,
}

impl<F: Rounded> Workspace<F> {
    pub fn new(isa: Isa) -> Self {
        Self {
            keys: Panels::empty(isa),
            positions: Panels::empty(isa),
            rounded: Vec::new(),
            by_key: Vec::new(),
            by_query: Vec::new(),
            scores: Vec::new(),
        }
    }
}

/// One head of one sequence, with what all its blocks multiply with.
pub(super) struct Task<'a, 'w, F: Rounded> {
    geometry: &'a Geometry<'a>,
    pub head: Head<'a>,
    sequence: Sequence<'a>,
    reach: Option<Reach<'a>>,
    workspace: &'w mut Workspace<F>,
}

impl<'a, 'w, F: Rounded> Task<'a, 'w, F> {
    /// Prepares the blocks of `queries`.
    pub fn new(
        geometry: &'a Geometry<'a>,
        head: Head<'a>,
        sequence: Sequence<'a>,
        queries: &Range<usize>,
        workspace: &'w mut Workspace<F>,
    ) -> Self {
        let length = sequence.keys.length;
        let reach = geometry.index.map(|index| Reach::new(index, sequence, queries));
        let Workspace { keys, positions, rounded, by_key, .. } = &mut *workspace;
        keys.pack(head.key.transposed());
        if let Some(reach) = &reach {
            if let Some(table) = head.position_key {
                positions.pack(table.rows(reach.rows.clone()).reversed().transposed());
            }
            if let Some(table) = head.position_query {
                let rows = reach.rows.len();
                let by_key = MatrixMut::new(resized(by_key, rows * length), 0, rows, length, length);
                let table = F::operand(geometry.isa, table.rows(reach.rows.clone()), rounded);
                keys.product(table, Start::Zero, by_key);
            }
        }
        Self { geometry, head, sequence, reach, workspace }
    }

    /// The rows that all its queries reach.
    pub fn reach(&self) -> Option<&Reach<'a>> {
        self.reach.as_ref()
    }

    /// The rows that Qc Kr^T of a block has columns for.
    pub fn block_reach(&self, queries: &Range<usize>) -> Option<Reach<'a>> {
        Some(self.reach.as_ref()?.of_block(queries, &self.workspace.positions).0)
    }

    /// Makes the scores of a block, not yet scaled, in `workspace.scores`.
    pub fn scores(&mut self, queries: Range<usize>) -> &mut [f32] {
        let (rows, length) = (queries.len(), self.sequence.keys.length);
        let Workspace { keys, positions, rounded, by_key, by_query, scores } = &mut *self.workspace;
        let query = F::operand(self.geometry.isa, self.head.query.rows(queries.clone()), rounded);

        let scores = resized(scores, rows * length);
        keys.product(query, Start::Zero, MatrixMut::new(scores, 0, rows, length, length));
        let block = self.head.position_key.and(self.reach.as_ref()).map(|reach| reach.of_block(&queries, positions));
        let by_query = block.as_ref().map(|(reach, columns)| {
            let width = columns.len();
            let table = resized(by_query, rows * width);
            let output = MatrixMut::new(table, 0, rows, width, width);
            positions.product_of_columns(query, columns.clone(), Start::Zero, output);
            (&*table, reach)
        });
        let by_key = self.head.position_query.zip(self.reach.as_ref()).map(|(_, reach)| (&by_key[..], reach));
        add_position_terms(self.geometry.isa, scores, queries, by_query, by_key, length);
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
