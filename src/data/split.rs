//! Which part of a data set a text belongs to.

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// What a model learns from.
    Train,
    /// What decisions are based on, such as when to stop.
    Valid,
    /// What the result is measured on.
    Test,
}

/// A split of texts into parts by their content. The same text is always in the same part, whatever its file or
/// position and however many copies there are. So no text is both learnt from and measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Fractions below this are [`Part::Train`].
    train_end: f64,
    /// Fractions below this and not below `train_end` are [`Part::Valid`].
    valid_end: f64,
}

impl Split {
    /// A split into parts of these sizes, as fractions of the whole. A part of size 0 gets nothing.
    ///
    /// # Errors
    /// A part outside `[0, 1]`, or parts that do not add up to 1 (within 1e-6, for sums like three thirds).
    pub fn new(train: f64, valid: f64, test: f64) -> Result<Self> {
        let parts = [train, valid, test];
        let fractions = parts.iter().all(|part| (0.0..=1.0).contains(part));
        if !fractions || (parts.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
            let problem = format!("its parts are {train}, {valid} and {test}, expected fractions that add up to 1");
            return Err(Error::setting("split", problem));
        }
        // Makes sure that rounding leaves nothing for a part of size 0.
        let valid_end = if test == 0.0 { 1.0 } else { train + valid };
        let train_end = if valid == 0.0 { valid_end } else { train };
        Ok(Self { train_end, valid_end })
    }

    /// The part that the text belongs to. The first 53 bits of its SHA-256, divided by 2^53, are a fraction that
    /// decides (in Python, `(int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53`).
    pub fn part(&self, text: &str) -> Part {
        // An f64 holds 53 bits exactly; all 64 might round up to 1.
        let first = Sha256::digest(text).iter().take(8).fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
        let fraction = (first >> 11) as f64 / (1u64 << 53) as f64;
        if fraction < self.train_end {
            Part::Train
        } else if fraction < self.valid_end {
            Part::Valid
        } else {
            Part::Test
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_have_their_sizes() {
        let split = Split::new(0.8, 0.1, 0.1).unwrap();
        let parts: Vec<Part> = (0..10_000).map(|number| split.part(&format!("text {number}"))).collect();
        // Standard deviations of 40 and 30 texts; five of them.
        for (part, size, bound) in [(Part::Train, 8000, 200), (Part::Valid, 1000, 150), (Part::Test, 1000, 150)] {
            let count = parts.iter().filter(|found| **found == part).count();
            assert!(count.abs_diff(size) < bound, "{part:?}: {count}");
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        // SHA-256 of "abc" begins with ba7816bf 8f01cfea (FIPS 180-4's example): 0.7284 of 2^64.
        let part = |train| Split::new(train, 1.0 - train, 0.0).unwrap().part("abc");
        let fraction = 0xba78_16bf_8f01_cfea_u64 as f64 / 2f64.powi(64);
        assert_eq!((part(fraction - 1e-9), part(fraction + 1e-9)), (Part::Valid, Part::Train));
    }

    #[test]
    fn fractions_must_add_up() {
        assert!(Split::new(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0).is_ok());
        for (train, valid, test) in
            [(0.8, 0.1, 0.2), (80.0, 10.0, 10.0), (1.2, -0.2, 0.0), (f64::NAN, 0.5, 0.5), (f64::INFINITY, 0.0, 0.0)]
        {
            let error = Split::new(train, valid, test).unwrap_err().to_string();
            assert!(error.contains("expected fractions that add up to 1"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_part_of_nothing_gets_nothing(text in ".*") {
            prop_assert_eq!(Split::new(1.0, 0.0, 0.0).unwrap().part(&text), Part::Train);
            prop_assert_eq!(Split::new(0.0, 1.0, 0.0).unwrap().part(&text), Part::Valid);
            prop_assert_eq!(Split::new(0.0, 0.0, 1.0).unwrap().part(&text), Part::Test);
            prop_assert_ne!(Split::new(0.5, 0.0, 0.5).unwrap().part(&text), Part::Valid);
        }

        /// A larger training part holds the smaller one.
        #[test]
        fn parts_grow(text in ".*", train in 0.0..0.5f64, more in 0.0..0.5f64) {
            let part = |train: f64| Split::new(train, 0.0, 1.0 - train).unwrap().part(&text);
            prop_assert!(part(train) != Part::Train || part(train + more) == Part::Train);
        }
    }
}
