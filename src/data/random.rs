//! The random numbers behind shuffling, masking and noise.

/// What splitmix64 adds to its state at each step: 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64: a bijection on 64-bit words. Words that differ a little become very different ones.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A small generator of random numbers: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
///
/// The order of batches, the masked positions and the swapped letters of a run depend on (seed, epoch, index) alone. A
/// resumed run makes its generators anew from these numbers, so that no generator state has to be saved. The generator
/// is the crate's own, so that no new version of a library can change what a seed means.
///
/// Not for secrets.
///
/// ```
/// use deberta_burn::data::Random;
///
/// let (seed, epoch, index) = (42, 3, 1000);
/// let mut random = Random::new(&[seed, epoch, index]);
/// let mut order = [0, 1, 2, 3];
/// random.shuffle(&mut order);
/// assert!(random.uniform() < 1.0 && random.below(6) < 6);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream that belongs to these numbers. Another order, or another count of numbers, gives another stream.
    pub fn new(key: &[u64]) -> Self {
        let state = key.iter().fold(0, |state: u64, &number| mix(state.wrapping_add(STEP) ^ number));
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number in `0..n`, each with the same probability.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "there is no number below 0");
        let n = n as u64;
        // Lemire, "Fast random integer generation in an interval", 2019: the result is the upper half of a random word
        // times n. To give each number equally many of the 2^64 words, 2^64 mod n words have to be left out: those
        // whose product has a lower half below that are drawn again.
        let surplus = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= surplus {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        const BITS: u32 = f64::MANTISSA_DIGITS;
        (self.next_u64() >> (u64::BITS - BITS)) as f64 / (1u64 << BITS) as f64
    }

    /// Puts the items into a random order; all orders are equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_splitmix64() {
        // The first outputs that the published algorithm gives from the state 1234567.
        let mut random = Random { state: 1_234_567 };
        assert_eq!(
            [random.next_u64(), random.next_u64(), random.next_u64()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_seed_means_the_same_for_ever() {
        // Fixed when this was written: a change would change every seeded run.
        let mut random = Random::new(&[42, 3, 1000]);
        assert_eq!(random.next_u64(), 3_648_808_046_984_408_021);
    }

    #[test]
    fn every_number_of_the_key_counts() {
        let keys: [&[u64]; 8] = [&[], &[0], &[0, 0], &[1], &[1, 0], &[0, 1], &[1, 0, 0], &[0, 0, 1]];
        let streams: std::collections::HashSet<u64> = keys.iter().map(|key| Random::new(key).next_u64()).collect();
        assert_eq!(streams.len(), keys.len());
    }

    #[test]
    fn below_is_even() {
        // 60,000 throws of a die: 10,000 each, standard deviation 91; 5 of these are 456.
        let mut random = Random::new(&[7]);
        let mut counts = [0i32; 6];
        (0..60_000).for_each(|_| counts[random.below(6)] += 1);
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 456), "{counts:?}");
    }

    #[test]
    fn uniform_fills_the_interval_evenly() {
        let mut random = Random::new(&[8]);
        let draws: Vec<f64> = (0..10_000).map(|_| random.uniform()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        // The mean of 10,000 has a standard deviation of 0.0029; 5 of these are 0.0144.
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.0144, "{mean}");
    }

    #[test]
    fn shuffle_gives_every_order_alike() {
        // 6 orders of 3 items, 10,000 each expected; bound as for the die.
        let mut counts = std::collections::HashMap::new();
        for index in 0..60_000 {
            let mut items = [0, 1, 2];
            Random::new(&[9, index]).shuffle(&mut items);
            *counts.entry(items).or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (count - 10_000).abs() < 456), "{counts:?}");
    }

    proptest! {
        #[test]
        fn below_stays_below(key in any::<u64>(), n in 1usize..) {
            let mut random = Random::new(&[key]);
            prop_assert!((0..20).all(|_| random.below(n) < n));
        }

        #[test]
        fn shuffle_keeps_every_item(key in any::<u64>(), items in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut shuffled = items.clone();
            Random::new(&[key]).shuffle(&mut shuffled);
            let sorted = |mut items: Vec<u8>| { items.sort_unstable(); items };
            prop_assert_eq!(sorted(shuffled), sorted(items));
        }
    }
}
