//! Sequences that lie end to end in one tensor, and queries at some of their tokens.

use std::{ops::Range, sync::Arc};

/// A sequence among others that lie end to end: a run of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceBounds {
    /// Its first row.
    pub start: usize,
    /// Its number of rows.
    pub length: usize,
}

impl SequenceBounds {
    /// Its rows.
    pub fn rows(self) -> Range<usize> {
        self.start..self.start + self.length
    }
}

/// The queries of a batch in which not every token has one, end to end, sequence by sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryPositions {
    /// The run of queries that each sequence has.
    pub bounds: Arc<[SequenceBounds]>,
    /// The position of each query in its sequence, rising within one.
    pub positions: Arc<[u32]>,
}
