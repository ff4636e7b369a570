//! The order in which a training run sees its examples.

use super::Random;
use crate::{Error, Result};

/// Batches in a pool. Examples are sorted by length within a pool: it is large enough for neighbours of similar length,
/// and small enough that an epoch remains a shuffle of the data.
const POOL: usize = 50;

/// The batches of one epoch: indices into `lengths` (tokens of each example), each exactly once.
///
/// Examples are shuffled, cut into pools of 50 batches and sorted by length within their pool, so that a batch holds
/// examples of similar length and little padding. Then the full batches are shuffled. If fewer than `batch_size`
/// examples remain, they are the last batch, whatever their lengths. The result depends on the arguments alone: a
/// resumed run calls this again and skips the batches that it has seen.
///
/// # Errors
/// A `batch_size` of 0.
pub fn training_batches(lengths: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Result<Vec<Vec<usize>>> {
    if batch_size == 0 {
        return Err(Error::value("batch size", 0, "at least 1"));
    }
    let mut random = Random::new(&[seed, epoch]);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    random.shuffle(&mut order);
    let (full, rest) = order.split_at_mut(lengths.len() - lengths.len() % batch_size);
    for pool in full.chunks_mut(batch_size.saturating_mul(POOL)) {
        pool.sort_by_key(|&index| lengths[index]);
    }
    let mut batches: Vec<Vec<usize>> = full.chunks(batch_size).map(<[usize]>::to_vec).collect();
    random.shuffle(&mut batches);
    if !rest.is_empty() {
        batches.push(rest.to_vec());
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens of all batches, each padded to its longest example.
    fn padded(batches: &[Vec<usize>], lengths: &[usize]) -> usize {
        batches.iter().map(|batch| batch.len() * batch.iter().map(|&index| lengths[index]).max().unwrap_or(0)).sum()
    }

    #[test]
    fn grouping_saves_most_of_the_padding() {
        let mut random = Random::new(&[1]);
        let lengths: Vec<usize> = (0..5000).map(|_| 4 + random.below(60)).collect();
        let tokens: usize = lengths.iter().sum();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        random.shuffle(&mut order);
        let plain: Vec<Vec<usize>> = order.chunks(16).map(<[usize]>::to_vec).collect();
        let waste = |batches: &[Vec<usize>]| padded(batches, &lengths) - tokens;
        let grouped = training_batches(&lengths, 16, 1, 0).unwrap();
        // The longest of 16 even lengths is near 60, twice the mean; within a pool, 16 neighbours span 60 / 50 tokens.
        assert!(waste(&grouped) * 10 < waste(&plain), "{} against {}", waste(&grouped), waste(&plain));
    }

    #[test]
    fn long_batches_come_at_any_time() {
        let lengths: Vec<usize> = (0..1600).collect();
        let batches = training_batches(&lengths, 16, 1, 0).unwrap();
        let longest: Vec<usize> = batches.iter().map(|batch| batch.iter().copied().max().unwrap()).collect();
        assert!(!longest.is_sorted() && !longest.is_sorted_by(|a, b| a > b));
        // 100 batches whose longest are even over 0..1600: the means of two halves differ with a standard deviation of
        // 92; five of them.
        let mean = |part: &[usize]| part.iter().sum::<usize>() / part.len();
        assert!(mean(&longest[..50]).abs_diff(mean(&longest[50..])) < 460);
    }

    #[test]
    fn seed_and_epoch_decide_the_order() {
        let lengths = vec![5; 100];
        let batches = |seed, epoch| training_batches(&lengths, 8, seed, epoch).unwrap();
        assert_eq!(batches(1, 2), batches(1, 2));
        assert_ne!(batches(1, 2), batches(1, 3));
        assert_ne!(batches(1, 2), batches(2, 2));
        assert_ne!(batches(1, 2), batches(2, 1));
    }

    #[test]
    fn a_batch_size_of_0_is_an_error() {
        assert!(training_batches(&[1], 0, 1, 0).unwrap_err().to_string().contains("expected at least 1"));
        assert!(training_batches(&[], 1, 1, 0).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn every_example_comes_once(
            lengths in proptest::collection::vec(0usize..100, 0..300),
            batch_size in prop_oneof![1usize..20, Just(usize::MAX)],
            epoch in 0u64..3,
        ) {
            let batches = training_batches(&lengths, batch_size, 7, epoch).unwrap();
            let mut seen: Vec<usize> = batches.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            if let Some((last, full)) = batches.split_last() {
                prop_assert!(full.iter().all(|batch| batch.len() == batch_size));
                prop_assert!((1..=batch_size).contains(&last.len()));
            }
        }
    }
}
