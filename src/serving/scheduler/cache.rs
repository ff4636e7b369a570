//! Rows that were computed before, by the exact tokens of their sequences.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::Sequence;

/// The rows that were used last, up to a number of bytes.
pub(super) struct Cache {
    limit: usize,
    bytes: usize,
    rows: HashMap<Sequence, (Arc<[f32]>, u64)>,
    /// The sequences by the time of their last use.
    uses: BTreeMap<u64, Sequence>,
    time: u64,
}

impl Cache {
    /// An empty cache of at most `limit` bytes; with 0 it stays empty.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, rows: HashMap::new(), uses: BTreeMap::new(), time: 0 }
    }

    /// The row of a sequence, if it is known.
    pub fn get(&mut self, sequence: &Sequence) -> Option<Arc<[f32]>> {
        let (row, used) = self.rows.get_mut(sequence)?;
        let sequence = self.uses.remove(used).expect("every row has its last use");
        self.time += 1;
        *used = self.time;
        self.uses.insert(self.time, sequence);
        Some(row.clone())
    }

    /// Keeps a row, and forgets those that were not used for longest.
    pub fn put(&mut self, sequence: &Sequence, row: &Arc<[f32]>) {
        if size(sequence, row) > self.limit || self.rows.contains_key(sequence) {
            return;
        }
        self.time += 1;
        self.bytes += size(sequence, row);
        self.uses.insert(self.time, sequence.clone());
        self.rows.insert(sequence.clone(), (row.clone(), self.time));
        while self.bytes > self.limit {
            let (_, oldest) = self.uses.pop_first().expect("what takes room has a last use");
            let (row, _) = self.rows.remove(&oldest).expect("its row is there");
            self.bytes -= size(&oldest, &row);
        }
    }
}

/// Bytes of a row and its sequence: all lists of an encoding, and what the maps need.
fn size(sequence: &Sequence, row: &[f32]) -> usize {
    const ENTRY: usize = 256;
    const TOKEN: usize = 64;
    ENTRY + TOKEN * sequence.tokens() + size_of_val(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Encoding;

    fn sequence(id: u32) -> Sequence {
        Sequence::new(Encoding { ids: vec![id], ..Encoding::default() })
    }

    #[test]
    fn the_row_that_was_not_used_for_longest_is_forgotten() {
        let row: Arc<[f32]> = Arc::from([1.0, 2.0]);
        let mut cache = Cache::new(2 * size(&sequence(0), &row));
        cache.put(&sequence(0), &row);
        cache.put(&sequence(1), &row);
        // The row itself, and not a copy of it.
        assert!(cache.get(&sequence(0)).is_some_and(|known| Arc::ptr_eq(&known, &row)));
        cache.put(&sequence(2), &row);
        let known = [0, 1, 2].map(|id| cache.get(&sequence(id)).is_some());
        assert_eq!((known, cache.bytes), ([true, false, true], cache.limit));
    }

    #[test]
    fn a_cache_without_room_stays_empty() {
        let mut cache = Cache::new(0);
        cache.put(&sequence(0), &Arc::from([1.0]));
        assert_eq!((cache.get(&sequence(0)), cache.bytes), (None, 0));
    }
}
