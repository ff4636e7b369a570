//! A share of a large input, for one of several machines.

use std::{fmt, ops::Range, str::FromStr};

use crate::{Error, Result};

/// The K-th of N shares of something that has an order. One after the other, the shares are the whole, and no two of them differ
/// by more than one in size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    number: usize,
    count: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { number: 1, count: 1 };

    /// Which of `items` items are in this share.
    pub fn range(self, items: usize) -> Range<usize> {
        // The product may be beyond a usize of 32 bits.
        let end = |shares: usize| (shares as u128 * items as u128 / self.count as u128) as usize;
        end(self.number - 1)..end(self.number)
    }
}

impl FromStr for Shard {
    type Err = Error;

    /// From `K/N`.
    ///
    /// # Errors
    /// Another spelling, or a K that is not from 1 to N.
    fn from_str(text: &str) -> Result<Self> {
        let numbers =
            text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((number, count)) if (1..=count).contains(&number) => Ok(Self { number, count }),
            _ => Err(Error::value("shard", text, "K/N, the K-th of N shares, with K from 1 to N")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_whole_one_after_the_other() {
        for (items, count) in [(0, 3), (2, 3), (10, 3), (12, 4), (100, 7), (5, 1)] {
            let shares = (1..=count).map(|number| format!("{number}/{count}").parse::<Shard>().unwrap().range(items));
            let sizes: Vec<usize> = shares.clone().map(|share| share.len()).collect();
            assert!(shares.flatten().eq(0..items), "{items} in {count}");
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        assert_eq!(Shard::WHOLE.range(usize::MAX), 0..usize::MAX);
    }

    #[test]
    fn other_spellings_are_errors() {
        for text in ["", "1", "0/2", "3/2", "1/0", "a/2", "1/2/3", "-1/2", "1 of 2"] {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("shard: it is {text}, expected K/N")), "{error}");
        }
    }
}
