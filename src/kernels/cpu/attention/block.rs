//! One block of queries against all keys of its sequence, while it is in cache.

use std::ops::Range;

use super::{Geometry, Head, Sequence};
use crate::isa::Isa;
use crate::kernels::{
    RelativeIndex,
    cpu::{
        lanes,
        matrix::{Matrix, MatrixMut},
        panels::Panels,
        product::Start,
        simd::vectorized,
    },
};

/// Scores that a block may hold: 128 KB, a quarter of a usual second-level cache.
const BLOCK_SCORES: usize = 32 * 1024;

/// Most queries in a block, a multiple of every tile's rows.
pub(super) const MOST_QUERIES: usize = 60;

/// Queries in a block: enough for an efficient product, few enough for the cache, and whole tiles.
pub(super) fn block_size(length: usize) -> usize {
    (BLOCK_SCORES / length / 12 * 12).clamp(12, MOST_QUERIES)
}

/// Which rows of the position table some queries of a sequence reach.
pub(super) struct Reach<'a> {
    index: &'a RelativeIndex,
    sequence: Sequence<'a>,
    /// The reached rows.
    pub rows: Range<usize>,
}

impl<'a> Reach<'a> {
    pub fn new(index: &'a RelativeIndex, sequence: Sequence<'a>, queries: &Range<usize>) -> Self {
        // Rows never fall as the distance grows: the first query and the last key have the lowest, the last query and the
        // first key the highest.
        let lowest = index.window(sequence.position(queries.start))[sequence.keys.length - 1] as usize;
        let highest = index.window(sequence.position(queries.end - 1))[0] as usize;
        Self { index, sequence, rows: lowest..highest + 1 }
    }

    /// Those of a block of the queries, and as many above as it takes for the columns of the reversed table to begin with a
    /// panel; and these columns.
    fn of_block(&self, queries: &Range<usize>, reversed: &Panels) -> (Self, Range<usize>) {
        let own = Self::new(self.index, self.sequence, queries).rows;
        let first = reversed.panel_start(self.rows.end - own.end);
        let columns = first..self.rows.end - own.start;
        (Self { index: self.index, sequence: self.sequence, rows: own.start..self.rows.end - first }, columns)
    }

    /// Where the pairs of one of the queries stand in the two tables of position scores.
    #[inline(always)]
    pub fn query(&self, query: usize) -> QueryReach<'a> {
        let (position, length) = (self.sequence.position(query), self.sequence.keys.length);
        QueryReach {
            window: &self.index.window(position)[..length],
            near: self.index.consecutive_keys(position, length),
            first: self.rows.start as u32,
            last: self.rows.end as u32 - 1,
        }
    }
}

/// The rows of one query, key by key: each from `first` to `last`.
pub(super) struct QueryReach<'a> {
    window: &'a [u32],
    /// The keys along which the row falls by one.
    near: Range<usize>,
    first: u32,
    last: u32,
}

impl QueryReach<'_> {
    /// The keys along which the row falls by one, and their elements in the query's row of Qc Kr^T, last position first.
    #[inline(always)]
    fn near(&self) -> (Range<usize>, Range<usize>) {
        let first = self.window.get(self.near.start).map_or(0, |row| (self.last - row) as usize);
        (self.near.clone(), first..first + self.near.len())
    }

    /// The runs of other keys.
    #[inline(always)]
    fn far(&self) -> [Range<usize>; 2] {
        [0..self.near.start, self.near.end..self.window.len()]
    }

    /// Adds the query's row of Qc Kr^T, last position first, to its scores.
    #[inline(always)]
    fn add_by_query(&self, scores: &mut [f32], terms: &[f32]) {
        let (keys, elements) = self.near();
        for (score, term) in scores[keys].iter_mut().zip(&terms[elements]) {
            *score += term;
        }
        assert!(terms.len() > (self.last - self.first) as usize);
        for keys in self.far() {
            for (score, row) in scores[keys.clone()].iter_mut().zip(&self.window[keys]) {
                // SAFETY: rows are from `first` to `last`, so that last - row is at most last - first, which was checked.
                *score += unsafe { terms.get_unchecked((self.last - row) as usize) };
            }
        }
    }

    /// The gradient of [`add_by_query`](Self::add_by_query): sums those of the scores by position.
    #[inline(always)]
    pub fn sum_by_query(&self, sums: &mut [f32], d_scores: &[f32]) {
        sums.fill(0.0);
        let (keys, elements) = self.near();
        sums[elements].copy_from_slice(&d_scores[keys]);
        for keys in self.far() {
            for (d_score, row) in d_scores[keys.clone()].iter().zip(&self.window[keys]) {
                sums[(self.last - row) as usize] += d_score;
            }
        }
    }

    /// Adds the query's elements of Qr Kc^T, [rows, keys], to its scores.
    #[inline(always)]
    fn add_by_key(&self, scores: &mut [f32], table: &[f32]) {
        let keys = self.window.len() as u32;
        self.check_by_key(table);
        for (key, (score, row)) in (0..keys).zip(scores.iter_mut().zip(self.window)) {
            // SAFETY: `check_by_key` saw that the table has keys columns in a row each for first to last.
            *score += unsafe { table.get_unchecked(((row - self.first) * keys + key) as usize) };
        }
    }

    /// The gradient of [`add_by_key`](Self::add_by_key): adds those of the scores to those of the table.
    #[inline(always)]
    pub fn sum_by_key(&self, sums: &mut [f32], d_scores: &[f32]) {
        let keys = self.window.len() as u32;
        self.check_by_key(sums);
        for (key, (d_score, row)) in (0..keys).zip(d_scores.iter().zip(self.window)) {
            // SAFETY: as in `add_by_key`.
            *unsafe { sums.get_unchecked_mut(((row - self.first) * keys + key) as usize) } += d_score;
        }
    }

    #[inline(always)]
    fn check_by_key(&self, table: &[f32]) {
        let rows = (self.last - self.first) as usize + 1;
        assert!(table.len() >= rows * self.window.len() && table.len() <= u32::MAX as usize);
    }
}

vectorized! {
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
                reach.query(query).add_by_query(scores, &table[row * width..][..width]);
            }
            if let Some((table, reach)) = by_key {
                reach.query(query).add_by_key(scores, table);
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
    lanes::sum(scores)
}

/// Buffers of one thread, kept from task to task.
pub(super) struct Workspace {
    /// Kc^T, [head_size, length].
    keys: Panels,
    /// Kr^T of the reached rows, columns reversed, [head_size, rows].
    positions: Panels,
    /// Qr Kc^T, [rows, length].
    by_key: Vec<f32>,
    /// Qc Kr^T of the block, columns reversed, [queries, rows].
    by_query: Vec<f32>,
    /// The block's scores, [queries, length].
    scores: Vec<f32>,
}

impl Workspace {
    pub fn new(isa: Isa) -> Self {
        Self {
            keys: Panels::empty(isa),
            positions: Panels::empty(isa),
            by_key: Vec::new(),
            by_query: Vec::new(),
            scores: Vec::new(),
        }
    }
}

/// One head of one sequence, with what all its blocks multiply with.
pub(super) struct Task<'a, 'w> {
    geometry: &'a Geometry<'a>,
    pub head: Head<'a>,
    sequence: Sequence<'a>,
    reach: Option<Reach<'a>>,
    workspace: &'w mut Workspace,
}

impl<'a, 'w> Task<'a, 'w> {
    /// Prepares the blocks of `queries`.
    pub fn new(
        geometry: &'a Geometry<'a>,
        head: Head<'a>,
        sequence: Sequence<'a>,
        queries: &Range<usize>,
        workspace: &'w mut Workspace,
    ) -> Self {
        let length = sequence.keys.length;
        let reach = geometry.index.map(|index| Reach::new(index, sequence, queries));
        let Workspace { keys, positions, by_key, .. } = &mut *workspace;
        keys.pack(head.key.transposed());
        if let Some(reach) = &reach {
            if let Some(table) = head.position_key {
                positions.pack(table.rows(reach.rows.clone()).reversed().transposed());
            }
            if let Some(table) = head.position_query {
                let rows = reach.rows.len();
                let by_key = MatrixMut::new(resized(by_key, rows * length), 0, rows, length, length);
                keys.product(table.rows(reach.rows.clone()), Start::Zero, by_key);
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
        let query = self.head.query.rows(queries.clone());
        let Workspace { keys, positions, by_key, by_query, scores } = &mut *self.workspace;

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
