//! The rows of the position table for each pair of a query and a key: what every attention kernel reads instead of a matrix.

use std::ops::Range;

/// Rows of a whole fragment of a matrix on tensor cores.
const FRAGMENT: usize = 16;

/// The rows for every pair of a query and a key, for one pair of lengths.
///
/// Only [`rows`](Self::rows) of the table can be reached at these lengths (255 of 512 at 128 tokens), so only they, up to a whole
/// fragment, are normalised and projected, and indices count from the first of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelativeIndex {
    query_length: usize,
    key_length: usize,
    rows: Range<usize>,
    /// The row of each distance i - j, from query_length - 1 down to -(key_length - 1): along the keys of one query the
    /// distance falls, so that each query's rows are a window of this.
    descending: Vec<u32>,
    /// The distances around 0 at which the row grows by exactly one a step.
    consecutive: Range<i64>,
}

impl RelativeIndex {
    /// The index for `query_length` queries and `key_length` keys, both at least 1, where `row` says the row of a distance
    /// i - j.
    ///
    /// # Panics
    /// If a length is 0, or rows fall as the distance grows.
    pub fn new(row: impl Fn(i64) -> usize, query_length: usize, key_length: usize) -> Self {
        let distances = 1 - key_length as i64..query_length as i64;
        let rows: Vec<usize> = distances.clone().map(&row).collect();
        assert!(rows.is_sorted(), "rows that fall as the distance grows: {rows:?}");
        let (first, last) = (rows[0], rows[rows.len() - 1]);
        let descending = rows.iter().rev().map(|row| (row - first) as u32).collect();
        let grows = |distance: &i64| row(*distance) + 1 == row(distance + 1);
        let consecutive = Range {
            start: (distances.start..0).rev().take_while(grows).last().unwrap_or(0),
            end: (0..distances.end - 1).take_while(grows).last().map_or(0, |distance| distance + 1) + 1,
        };
        Self { query_length, key_length, rows: first..last + 1, descending, consecutive }
    }

    /// The rows of the position table that these lengths reach.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The rows to multiply of a table that has `count`, of which the reached ones begin at `first`: their number is odd where
    /// no distance is clamped, so there are some more, up to a whole fragment where the table has that many.
    pub fn whole_rows(&self, first: usize, count: usize) -> Range<usize> {
        let length = self.rows.len().next_multiple_of(FRAGMENT).min(count);
        let start = first.min(count - length);
        start..start + length
    }

    /// Number of queries.
    pub fn query_length(&self) -> usize {
        self.query_length
    }

    /// Number of keys.
    pub fn key_length(&self) -> usize {
        self.key_length
    }

    /// The rows of one query, key by key, counted from the first reached row; never rising.
    pub fn window(&self, query: usize) -> &[u32] {
        let start = self.query_length - 1 - query;
        &self.descending[start..start + self.key_length]
    }

    /// The rows of `count` distances i - j, from the largest of them to `smallest`, counted from the first reached row.
    pub fn descending_rows(&self, smallest: i64, count: usize) -> &[u32] {
        let end = (self.query_length as i64 - smallest) as usize;
        &self.descending[end - count..end]
    }

    /// The keys of one query, out of the first `keys`, along which the row falls by exactly one from key to key.
    pub fn consecutive_keys(&self, query: usize, keys: usize) -> Range<usize> {
        // distance = query - key
        let key = |distance: i64| (query as i64 - distance).clamp(0, keys as i64) as usize;
        key(self.consecutive.end - 1)..key(self.consecutive.start - 1)
    }

    /// The row of each distance i - j, from the largest, [`query_length`](Self::query_length) - 1, to the smallest.
    #[cfg(feature = "gpu")]
    pub(crate) fn descending(&self) -> &[u32] {
        &self.descending
    }

    /// The whole index, [query, key] row by row.
    pub fn table(&self) -> Vec<i32> {
        (0..self.query_length).flat_map(|query| self.window(query).iter().map(|row| *row as i32)).collect()
    }
}
