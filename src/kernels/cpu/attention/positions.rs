//! The position terms of scores: where they are in the products with the rows of the position table, and how they get there.

use std::ops::Range;

use super::{Sequence, block::MOST_QUERIES};
use crate::kernels::{
    RelativeIndex,
    cpu::{
        floats::Rounded,
        panels::Panels,
        simd::{Simd, vectorized},
    },
};

/// Lanes of the widest registers.
const MOST_LANES: usize = 16;

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
            first: self.rows.start as u32,
            last: self.rows.end as u32 - 1,
        }
    }
}

/// The rows of one query, key by key: each from `first` to `last`.
struct QueryReach<'a> {
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
                    let picked = simd.pick(from.as_ptr(), indices);
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

    /// The keys of some, and where their elements are in Qr Kc^T, [rows, keys].
    #[inline(always)]
    fn by_key(&self, keys: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let length = self.window.len();
        keys.map(move |key| (key, (self.window[key] - self.first) as usize * length + key))
    }
}

/// Elements of Qr Kc^T, [rows, keys], for consecutive queries, and a register of keys.
///
/// From key to key the table's row falls, so that what a query needs lies along a diagonal. For every distance of a query from the
/// last of the keys, upwards, a line is a register of the table's row of that distance; lane l of a query's terms is that of the
/// line l before its own.
struct Lines<'a> {
    /// [lines, lanes]
    lines: &'a mut [f32],
    /// The table's row of each line, the last line first.
    rows: &'a [u32],
}

/// The direction of [`Lines::move_lanes`].
#[derive(Clone, Copy, PartialEq)]
enum Towards {
    /// From the table's rows to the queries.
    Queries,
    /// And back.
    Rows,
}

impl Lines<'_> {
    /// Lane l of each line becomes that of the line l before it, or after it on the way back, and zero where there is none: by 1, 2,
    /// 4, .. lines, the lanes whose number has that bit.
    #[inline(always)]
    fn move_lanes<S: Simd>(&mut self, simd: S, towards: Towards) {
        let count = self.rows.len();
        assert_eq!(self.lines.len(), count * S::LANES, "a register a line");
        let lines = self.lines.as_mut_ptr();
        let offset = |number: usize| S::LANES * if towards == Towards::Queries { number } else { count - 1 - number };
        let mut bit = 1;
        while bit < S::LANES {
            let lanes: [i32; MOST_LANES] = std::array::from_fn(|lane| if lane & bit == 0 { 0 } else { -1 });
            // SAFETY: a register has at most so many lanes, and there are `count` lines of a register.
            unsafe {
                let lanes = simd.load_integers(lanes.as_ptr());
                for number in (0..count).rev() {
                    let line = lines.add(offset(number));
                    let moved = if number < bit { simd.splat(0.0) } else { simd.load(lines.add(offset(number - bit))) };
                    simd.store(line, simd.select(lanes, moved, simd.load(line)));
                }
            }
            bit *= 2;
        }
    }
}

impl Reach<'_> {
    /// Goes through the keys a register at a time, as far as the lines of their diagonals serve these queries, and returns how
    /// many keys that are.
    #[inline(always)]
    fn registers<S: Simd>(
        &self,
        _: S,
        queries: &Range<usize>,
        mut visit: impl FnMut(Range<usize>, Lines<'_>),
    ) -> usize {
        if self.sequence.positions.is_some() {
            // Queries at any places.
            return 0;
        }
        let whole = self.sequence.keys.length / S::LANES * S::LANES;
        let count = queries.len() + S::LANES - 1;
        let mut lines = [0.0; (MOST_QUERIES + MOST_LANES - 1) * MOST_LANES];
        for key in (0..whole).step_by(S::LANES) {
            let end = key + S::LANES;
            let rows = self.index.descending_rows(queries.start as i64 - (end as i64 - 1), count);
            visit(key..end, Lines { lines: &mut lines[..count * S::LANES], rows });
        }
        whole
    }

    /// Where these keys of a row of the position table are in Qr Kc^T, [rows, keys].
    #[inline(always)]
    fn part(&self, row: u32, keys: &Range<usize>) -> Range<usize> {
        let start = (row as usize - self.rows.start) * self.sequence.keys.length;
        start + keys.start..start + keys.end
    }

    /// Adds Qr Kc^T, [rows, keys], to the scores of some queries, [queries, keys].
    #[inline(always)]
    fn add_by_key<S: Simd>(&self, simd: S, scores: &mut [f32], queries: Range<usize>, table: &[f32]) {
        let length = self.sequence.keys.length;
        let done = self.registers(simd, &queries, |keys, mut lines| {
            for (line, row) in lines.lines.chunks_exact_mut(S::LANES).zip(lines.rows.iter().rev()) {
                line.copy_from_slice(&table[self.part(*row, &keys)]);
            }
            lines.move_lanes(simd, Towards::Queries);
            let terms = lines.lines.chunks_exact(S::LANES).skip(S::LANES - 1);
            for (scores, terms) in scores.chunks_exact_mut(length).zip(terms) {
                for (score, term) in scores[keys.clone()].iter_mut().zip(terms) {
                    *score += term;
                }
            }
        });
        for (query, scores) in queries.zip(scores.chunks_exact_mut(length)) {
            for (key, element) in self.query(query).by_key(done..length) {
                scores[key] += table[element];
            }
        }
    }

    /// The gradient of [`add_by_key`](Self::add_by_key): adds those of the scores to those of the table.
    #[inline(always)]
    fn sum_by_key<S: Simd>(&self, simd: S, sums: &mut [f32], d_scores: &[f32], queries: Range<usize>) {
        let length = self.sequence.keys.length;
        let done = self.registers(simd, &queries, |keys, mut lines| {
            let (others, of_queries) = lines.lines.split_at_mut((S::LANES - 1) * S::LANES);
            others.fill(0.0);
            for (line, d_scores) in of_queries.chunks_exact_mut(S::LANES).zip(d_scores.chunks_exact(length)) {
                line.copy_from_slice(&d_scores[keys.clone()]);
            }
            lines.move_lanes(simd, Towards::Rows);
            for (line, row) in lines.lines.chunks_exact(S::LANES).zip(lines.rows.iter().rev()) {
                for (sum, d_score) in sums[self.part(*row, &keys)].iter_mut().zip(line) {
                    *sum += d_score;
                }
            }
        });
        for (query, d_scores) in queries.zip(d_scores.chunks_exact(length)) {
            for (key, element) in self.query(query).by_key(done..length) {
                sums[element] += d_scores[key];
            }
        }
    }
}

vectorized! {
    /// The gradient of the terms by key: adds a block's part of B.
    pub(super) fn sum_by_key(
        simd: impl Simd,
        sums: &mut [f32],
        d_scores: &[f32],
        queries: Range<usize>,
        reach: &Reach<'_>,
    ) {
        reach.sum_by_key(simd, sums, d_scores, queries);
    }
}

vectorized! {
    /// The gradient of the terms by query: A of a block, columns reversed.
    pub(super) fn sum_by_query(sums: &mut [f32], d_scores: &[f32], queries: Range<usize>, reach: &Reach<'_>) {
        let rows = sums.chunks_exact_mut(reach.rows.len()).zip(d_scores.chunks_exact(reach.sequence.keys.length));
        for (query, (sums, d_scores)) in queries.zip(rows) {
            reach.query(query).sum_by_query(sums, d_scores);
        }
    }
}

vectorized! {
    /// Adds Qc . Kr and Qr . Kc to the scores of a block, [queries, length].
    ///
    /// `by_query` is Qc Kr^T of the block with its columns reversed, [queries, rows]; `by_key` is Qr Kc^T, [rows, length].
    pub(super) fn add_position_terms(
        simd: impl Simd,
        scores: &mut [f32],
        queries: Range<usize>,
        by_query: Option<(&[f32], &Reach<'_>)>,
        by_key: Option<(&[f32], &Reach<'_>)>,
        length: usize,
    ) {
        if let Some((table, reach)) = by_query {
            let rows = scores.chunks_exact_mut(length).zip(table.chunks_exact(reach.rows.len()));
            for (query, (scores, terms)) in queries.clone().zip(rows) {
                reach.query(query).add_by_query(simd, scores, terms);
            }
        }
        if let Some((table, reach)) = by_key {
            reach.add_by_key(simd, scores, queries, table);
        }
    }
}
