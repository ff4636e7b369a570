//! One block of queries against all keys of its sequence, while it is in cache.

use std::ops::Range;

use super::{
    Geometry, Head, Sequence,
    positions::{Reach, add_position_terms},
};
use crate::isa::Isa;
use crate::kernels::cpu::{
    floats::Rounded,
    format::Format,
    lanes,
    lines::{Line, room, stride},
    matrix::{Matrix, MatrixMut},
    panels::Panels,
    product::Start,
    simd::Simd,
};

/// Scores that a block may hold: 128 KB, a quarter of a usual second-level cache.
const BLOCK_SCORES: usize = 32 * 1024;

/// Most queries in a block.
pub(super) const MOST_QUERIES: usize = 64;

/// Queries in a block: enough for an efficient product, few enough for the cache, and whole [tiles](Format::TILE_ROWS).
pub(super) fn block_size<F: Format>(length: usize) -> usize {
    let whole = |queries: usize| queries / F::TILE_ROWS * F::TILE_ROWS;
    whole(BLOCK_SCORES / length).clamp(F::TILE_ROWS, whole(MOST_QUERIES))
}

/// Turns a row of scores into exponentials and returns the sum: the probabilities are the exponentials over it.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, scores: &mut [f32], scale: f32) -> f32 {
    let highest = lanes::maximum(scores);
    for score in scores.iter_mut() {
        *score = lanes::exp(simd, (*score - highest) * scale);
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
    rounded: Vec<Line>,
    /// Qr Kc^T, [rows, length].
    by_key: Buffer,
    /// Qc Kr^T of the block, columns reversed, [queries, rows].
    by_query: Buffer,
    /// The block's scores, [queries, length].
    scores: Buffer,
}

impl<F: Rounded> Workspace<F> {
    pub fn new(isa: Isa) -> Self {
        Self {
            keys: Panels::empty(isa),
            positions: Panels::empty(isa),
            rounded: Vec::new(),
            by_key: Buffer::default(),
            by_query: Buffer::default(),
            scores: Buffer::default(),
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
                let table = F::operand(geometry.isa, table.rows(reach.rows.clone()), rounded);
                keys.product(table, Start::Zero, by_key.matrix(rows, length));
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
    pub fn scores(&mut self, queries: Range<usize>) -> MatrixMut<'_> {
        let (rows, length) = (queries.len(), self.sequence.keys.length);
        let Workspace { keys, positions, rounded, by_key: by_key_table, by_query, scores } = &mut *self.workspace;
        let query = F::operand(self.geometry.isa, self.head.query.rows(queries.clone()), rounded);

        let mut scores = scores.matrix(rows, length);
        keys.product(query, Start::Zero, scores.rows(0..rows));
        let block = self.head.position_key.and(self.reach.as_ref()).map(|reach| reach.of_block(&queries, positions));
        let by_query = block.as_ref().map(|(reach, columns)| {
            let width = columns.len();
            positions.product_of_columns(query, columns.clone(), Start::Zero, by_query.matrix(rows, width));
            (by_query.written(rows, width), reach)
        });
        let by_key = self.head.position_query.and(self.reach.as_ref());
        let by_key = by_key.map(|reach| (by_key_table.written(reach.rows.len(), length), reach));
        add_position_terms(self.geometry.isa, &mut scores, queries, by_query, by_key);
        scores
    }
}

/// Room for a matrix of numbers, which grows when it must.
#[derive(Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// A matrix to write; what stands in it is of no meaning.
    pub fn matrix(&mut self, rows: usize, columns: usize) -> MatrixMut<'_> {
        let stride = stride::<f32>(columns);
        MatrixMut::new(room(&mut self.0, rows * stride), 0, rows, columns, stride)
    }

    /// The matrix of this size that was written last.
    pub fn written(&self, rows: usize, columns: usize) -> Matrix<'_> {
        Matrix::new(bytemuck::cast_slice(&self.0), 0, rows, columns, stride::<f32>(columns))
    }
}
