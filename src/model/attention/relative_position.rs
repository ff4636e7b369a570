//! Relative positions: from a distance to a row of the position table. Host code, no tensors.
//!
//! Query i and key j share the row (paper section 3.1; `make_log_bucket_position` in the reference)
//!
//! ```text
//! idx(i, j) = clamp( rho(i - j) + S, 0, 2 S - 1 )
//! ```
//!
//! with the attention span S, and rho the identity or the log bucket. The row depends on i - j alone, never falls as i - j
//! grows, and is the same for the content-to-position and the position-to-content term.

use crate::config::DebertaConfig;
pub use crate::kernels::RelativeIndex;

/// The rule from a distance to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativePositions {
    /// Attention span S: the table has 2 S rows.
    pub attention_span: usize,
    /// Number of log buckets a side (b), if distances are bucketed.
    pub buckets: Option<usize>,
    /// Largest distance that the buckets tell apart (m).
    pub max_distance: usize,
}

impl RelativePositions {
    /// The rule of a configuration.
    pub fn new(config: &DebertaConfig) -> Self {
        Self {
            attention_span: config.attention_span(),
            buckets: config.position_buckets(),
            max_distance: config.max_relative_positions(),
        }
    }

    /// rho: the distance i - j, or its log bucket.
    ///
    /// With mid = b / 2 (an integer), distances up to mid keep their value, and a larger |r| falls into bucket
    /// `ceil( ln(|r| / mid) / ln((m - 1) / mid) * (mid - 1) ) + mid`. f32 arithmetic, as the reference's, gives the same
    /// integers for the published b and m; f64 is used throughout. Distances beyond m are not clamped
    /// to it, as in transformers (the original clamps them): the clamp to the table's rows comes after.
    pub fn bucket(&self, distance: i64) -> i64 {
        let Some(buckets) = self.buckets else { return distance };
        let mid = (buckets / 2) as f64;
        let magnitude = distance.unsigned_abs() as f64;
        if magnitude <= mid {
            return distance;
        }
        let largest = (self.max_distance - 1) as f64;
        let bucket = ((magnitude / mid).ln() / (largest / mid).ln() * (mid - 1.0)).ceil() + mid;
        bucket as i64 * distance.signum()
    }

    /// idx: the row of the position table for the distance i - j.
    pub fn row(&self, distance: i64) -> usize {
        let span = self.attention_span as i64;
        (self.bucket(distance) + span).clamp(0, 2 * span - 1) as usize
    }

    /// The rows for every pair of a query and a key.
    ///
    /// # Panics
    /// If a length is 0, or rows fall as the distance grows, which the kernels rely on; a configuration that
    /// [`validate`](DebertaConfig::validate) accepts has no such rows.
    pub fn index(self, query_length: usize, key_length: usize) -> RelativeIndex {
        RelativeIndex::new(|distance| self.row(distance), query_length, key_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: RelativePositions = RelativePositions { attention_span: 256, buckets: Some(256), max_distance: 512 };

    #[test]
    fn published_buckets_have_the_reference_values() {
        for (distance, bucket) in [(0, 0), (1, 1), (-5, -5), (128, 128), (129, 129), (131, 131), (132, 131), (256, 192)]
        {
            assert_eq!(V3.bucket(distance), bucket, "{distance}");
            assert_eq!(V3.bucket(-distance), -bucket, "-{distance}");
        }
        assert_eq!((V3.bucket(511), V3.bucket(-511)), (255, -255));
        assert_eq!((V3.row(5000), V3.row(-5000)), (511, 0));
    }

    #[test]
    fn every_magnitude_occurs() {
        let mut buckets: Vec<_> = (0..512).map(|distance| V3.bucket(distance)).collect();
        buckets.dedup();
        assert_eq!(buckets, (0..256).collect::<Vec<_>>());
    }

    #[test]
    fn distances_beyond_the_attention_span_are_clamped() {
        let plain = RelativePositions { attention_span: 4, buckets: None, max_distance: 4 };
        let rows: Vec<_> = (-6..=6).map(|distance| plain.row(distance)).collect();
        assert_eq!(rows, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7]);
    }

    #[test]
    fn index_is_the_rule_for_each_pair() {
        for (queries, keys) in [(1, 1), (5, 5), (3, 7), (9, 2), (300, 300)] {
            let index = V3.index(queries, keys);
            let table = index.table();
            assert_eq!(table.len(), queries * keys);
            for i in 0..queries {
                for j in 0..keys {
                    let row = V3.row(i as i64 - j as i64) - index.rows().start;
                    assert_eq!(index.window(i)[j] as usize, row);
                    assert_eq!(table[i * keys + j] as usize, row);
                }
            }
        }
    }

    #[test]
    fn consecutive_keys_fall_by_one() {
        let clamped = RelativePositions { attention_span: 4, buckets: None, max_distance: 4 };
        for positions in [V3, clamped] {
            let index = positions.index(300, 300);
            for query in [0, 1, 7, 150, 299] {
                let (keys, window) = (index.consecutive_keys(query, 300), index.window(query));
                assert!(keys.contains(&query) && keys.len() >= 4, "query {query}: {keys:?}");
                for key in keys.start + 1..keys.end {
                    assert_eq!(window[key] + 1, window[key - 1], "query {query}, key {key}");
                }
            }
        }
        assert_eq!(V3.index(300, 300).consecutive_keys(150, 300), 19..282);
        assert_eq!(V3.index(1, 1).consecutive_keys(0, 1), 0..1);
    }

    #[test]
    fn short_inputs_reach_few_rows() {
        assert_eq!(V3.index(128, 128).rows(), 129..384);
        assert_eq!(V3.index(512, 512).rows(), 1..512);
    }

    #[test]
    fn rows_to_multiply_hold_the_reached_ones_in_whole_fragments() {
        let whole = |length: usize, rule: RelativePositions| {
            let index = rule.index(length, length);
            let (reached, count) = (index.rows(), 2 * rule.attention_span);
            let whole = index.whole_rows(reached.start, count);
            assert!(whole.start <= reached.start && reached.end <= whole.end && whole.end <= count, "{whole:?}");
            whole
        };
        assert_eq!(whole(128, V3), 129..385);
        // No row follows the last one reached.
        assert_eq!(whole(512, V3), 0..512);
        assert_eq!(whole(1, V3), 256..272);
        // A table with less than a fragment is multiplied as it is.
        assert_eq!(whole(9, RelativePositions { attention_span: 4, buckets: None, max_distance: 4 }), 0..8);
    }
}
