//! The position terms of scores: where they are in the products with the rows of the position table, and how they get there.

use std::{ops::Range, ptr};

use super::{Sequence, block::MOST_QUERIES};
use crate::kernels::{
    RelativeIndex,
    cpu::{
        floats::Rounded,
        matrix::{Matrix, MatrixMut},
        panels::{Panels, parts},
        simd::{MOST_LANES, Simd, vectorized},
    },
};

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
    pub fn of_block<F: Rounded>(&self, queries: &Range<usize>, reversed: &Panels<F>) -> (Self, Range<usize>) {
        let own = Self::new(self.index, self.sequence, queries).rows;
        let first = reversed.panel_start(self.rows.end - own.end);
        let columns = first..self.rows.end - own.start;
        (Self { index: self.index, sequence: self.sequence, rows: own.start..self.rows.end - first }, columns)
    }

    /// Where the pairs of one of the queries stand in the two tables of position scores.
    #[inline(always)]
    fn query(&self, query: usize) -> QueryReach<'a> {
        let (position, length) = (self.sequence.position(query), self.sequence.keys.length);
        QueryReach {
            window: &self.index.window(position)[..length],
            near: self.index.consecutive_keys(position, length),
            last: self.rows.end as u32 - 1,
        }
    }
}

/// The rows of one query, key by key: none above `last`.
struct QueryReach<'a> {
    window: &'a [u32],
    /// The keys along which the row falls by one.
    near: Range<usize>,
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
    fn add_by_query<S: Simd>(&self, simd: S, scores: &mut [f32], terms: &[f32]) {
        let registers = scores.chunks_mut(S::LANES).zip(self.window.chunks(S::LANES));
        for (scores, rows) in registers {
            // A register of terms from `start` on has those of all these keys, unless rows fall faster than that.
            let start = (self.last - rows[0]).min((terms.len() as u32).saturating_sub(S::LANES as u32));
            let farthest = self.last - rows[rows.len() - 1] - start;
            if rows.len() == S::LANES && terms.len() >= S::LANES && farthest < S::LANES as u32 {
                let from = &terms[start as usize..][..S::LANES];
                // SAFETY: there are as many terms, rows and scores as a register has. Rows never rise along the keys, so that an
                // index, `last - row - start`, is at most `farthest`.
                unsafe {
                    let indices = simd.difference(
                        simd.splat_integers((self.last - start) as i32),
                        simd.load_integers(rows.as_ptr().cast()),
                    );
                    let picked = simd.pick(simd.load(from.as_ptr()), indices);
                    simd.store(scores.as_mut_ptr(), simd.add(simd.load(scores.as_ptr()), picked));
                }
            } else {
                for (score, row) in scores.iter_mut().zip(rows) {
                    *score += terms[(self.last - row) as usize];
                }
            }
        }
    }

    /// The gradient of [`add_by_query`](Self::add_by_query): sums those of the scores by position.
    #[inline(always)]
    fn sum_by_query(&self, sums: &mut [f32], d_scores: &[f32]) {
        sums.fill(0.0);
        let (keys, elements) = self.near();
        sums[elements].copy_from_slice(&d_scores[keys]);
        for keys in self.far() {
            for (d_score, row) in d_scores[keys.clone()].iter().zip(&self.window[keys]) {
                sums[(self.last - row) as usize] += d_score;
            }
        }
    }
}

/// Most lines that [`add_diagonals`] reads: a block's queries, and a register's lanes before and behind them.
const MOST_LINES: usize = MOST_QUERIES + 2 * (MOST_LANES - 1);

/// Lines of registers.
type LineBuffer = [f32; MOST_LINES * MOST_LANES];

const NO_LINES: LineBuffer = [0.0; MOST_LINES * MOST_LANES];

/// Adds diagonals to registers: `to[n][lane] += from[n + LANES - 1 - lane][lane]`.
///
/// Lanes move by up to three lines on the way to `buffer`, and by a multiple of four on the way from there.
///
/// # Safety
/// A register can be read from each of `from`, of which there are `LANES - 1` more than of `to`, and each of `to` can be read and
/// written.
#[inline(always)]
unsafe fn add_diagonals<S: Simd>(simd: S, from: &[*const f32], to: &[*mut f32], buffer: &mut LineBuffer) {
    assert!(from.len() == to.len() + S::LANES - 1 && from.len() <= MOST_LINES);
    let buffer = buffer.as_mut_ptr();
    let lanes = |which: fn(usize) -> usize, number: usize| -> [i32; MOST_LANES] {
        std::array::from_fn(|lane| if which(lane) == number { -1 } else { 0 })
    };
    // SAFETY: the caller's promise; the buffer has as many lines, and a register at most so many lanes.
    unsafe {
        let within_four = [1, 2, 3].map(|number| simd.load_integers(lanes(|lane| lane % 4, number).as_ptr()));
        for (end, from) in (3..).zip(from.windows(4)) {
            let mut line = simd.load(from[3]);
            line = simd.select(within_four[0], simd.load(from[2]), line);
            line = simd.select(within_four[1], simd.load(from[1]), line);
            line = simd.select(within_four[2], simd.load(from[0]), line);
            simd.store(buffer.add(end * S::LANES), line);
        }
        let fours = [1, 2, 3].map(|number| simd.load_integers(lanes(|lane| lane / 4, number).as_ptr()));
        for (end, to) in (S::LANES - 1..).zip(to) {
            let line = buffer.add(end * S::LANES);
            let mut sum = simd.load(line);
            for number in 1..S::LANES / 4 {
                sum = simd.select(fours[number - 1], simd.load(line.sub(4 * number * S::LANES)), sum);
            }
            simd.store(*to, simd.add(simd.load(*to), sum));
        }
    }
}

impl Reach<'_> {
    /// How many keys fill whole registers for [`add_diagonals`]; none where queries are at any places.
    #[inline(always)]
    fn keys_in_registers<S: Simd>(&self, _: S) -> usize {
        match self.sequence.positions {
            None => self.sequence.keys.length / S::LANES * S::LANES,
            Some(_) => 0,
        }
    }

    /// The rows of Qr Kc^T of each distance of some queries from some keys, the largest distance first.
    #[inline(always)]
    fn table_rows(&self, queries: &Range<usize>, keys: &Range<usize>) -> impl DoubleEndedIterator<Item = usize> {
        let smallest = queries.start as i64 - (keys.end as i64 - 1);
        let rows = self.index.descending_rows(smallest, queries.len() + keys.len() - 1);
        rows.iter().map(|row| self.table_row(*row))
    }

    /// The row of Qr Kc^T that a row of the position table has.
    #[inline(always)]
    fn table_row(&self, row: u32) -> usize {
        row as usize - self.rows.start
    }

    /// Adds Qr Kc^T, [rows, keys], to the scores of some queries, [queries, keys].
    ///
    /// From key to key the table's row falls, so that what a query needs lies along a diagonal: of the rows of all distances, from
    /// the smallest up, if the rows far from the diagonal are thought of as repeated.
    #[inline(always)]
    fn add_by_key<S: Simd>(&self, simd: S, scores: &mut MatrixMut<'_>, queries: Range<usize>, table: Matrix<'_>) {
        let whole = self.keys_in_registers(simd);
        let (mut from, mut to) = ([ptr::null(); MOST_LINES], [ptr::null_mut(); MOST_LINES]);
        let (from, to) = (&mut from[..queries.len() + S::LANES - 1], &mut to[..queries.len()]);
        let mut buffer = NO_LINES;
        for keys in parts(0..whole, S::LANES) {
            for (from, row) in from.iter_mut().zip(self.table_rows(&queries, &keys).rev()) {
                *from = table.row(row)[keys.clone()].as_ptr();
            }
            for (row, to) in to.iter_mut().enumerate() {
                *to = scores.place(row, &keys);
            }
            // SAFETY: these are all of a register of keys, and the scores no part of the table.
            unsafe { add_diagonals(simd, from, to, &mut buffer) };
        }
        for (row, query) in queries.enumerate() {
            let (scores, reach) = (scores.row_mut(row), self.query(query));
            for (key, score) in scores.iter_mut().enumerate().skip(whole) {
                *score += table.get(self.table_row(reach.window[key]), key);
            }
        }
    }

    /// The gradient of [`add_by_key`](Self::add_by_key): adds those of the scores to those of the table.
    ///
    /// Seen from the largest distance down, these are diagonals as well, of the queries from the last to the first.
    #[inline(always)]
    fn sum_by_key<S: Simd>(&self, simd: S, sums: &mut MatrixMut<'_>, d_scores: Matrix<'_>, queries: Range<usize>) {
        let whole = self.keys_in_registers(simd);
        let (nothing, beyond) = ([0.0f32; MOST_LANES], S::LANES - 1);
        let (mut from, mut to) = ([nothing.as_ptr(); MOST_LINES], [ptr::null_mut(); MOST_LINES]);
        let (from, to) = (&mut from[..queries.len() + 2 * beyond], &mut to[..queries.len() + beyond]);
        let mut buffer = NO_LINES;
        for keys in parts(0..whole, S::LANES) {
            for (row, from) in from[beyond..][..queries.len()].iter_mut().rev().enumerate() {
                *from = d_scores.row(row)[keys.clone()].as_ptr();
            }
            for (to, row) in to.iter_mut().zip(self.table_rows(&queries, &keys)) {
                *to = sums.place(row, &keys);
            }
            // SAFETY: as above. Distances that share a row are added one after another.
            unsafe { add_diagonals(simd, from, to, &mut buffer) };
        }
        for (row, query) in queries.enumerate() {
            let (d_scores, reach) = (d_scores.row(row), self.query(query));
            for (key, d_score) in d_scores.iter().enumerate().skip(whole) {
                sums.row_mut(self.table_row(reach.window[key]))[key] += d_score;
            }
        }
    }
}

vectorized! {
    /// The gradient of the terms by key: adds a block's part of B.
    pub(super) fn sum_by_key(
        simd: impl Simd,
        sums: &mut MatrixMut<'_>,
        d_scores: Matrix<'_>,
        queries: Range<usize>,
        reach: &Reach<'_>,
    ) {
        reach.sum_by_key(simd, sums, d_scores, queries);
    }
}

vectorized! {
    /// The gradient of the terms by query: A of a block, columns reversed.
    pub(super) fn sum_by_query(
        sums: &mut MatrixMut<'_>,
        d_scores: Matrix<'_>,
        queries: Range<usize>,
        reach: &Reach<'_>,
    ) {
        for (row, query) in queries.enumerate() {
            reach.query(query).sum_by_query(sums.row_mut(row), d_scores.row(row));
        }
    }
}

vectorized! {
    /// Adds Qc . Kr and Qr . Kc to the scores of a block, [queries, length].
    ///
    /// `by_query` is Qc Kr^T of the block with its columns reversed, [queries, rows]; `by_key` is Qr Kc^T, [rows, length].
    pub(super) fn add_position_terms(
        simd: impl Simd,
        scores: &mut MatrixMut<'_>,
        queries: Range<usize>,
        by_query: Option<(Matrix<'_>, &Reach<'_>)>,
        by_key: Option<(Matrix<'_>, &Reach<'_>)>,
    ) {
        if let Some((table, reach)) = by_query {
            for (row, query) in queries.clone().enumerate() {
                reach.query(query).add_by_query(simd, scores.row_mut(row), table.row(row));
            }
        }
        if let Some((table, reach)) = by_key {
            reach.add_by_key(simd, scores, queries, table);
        }
    }
}
