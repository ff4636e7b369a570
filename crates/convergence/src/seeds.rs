//! The seeds of an experiment.

use std::{ops::RangeInclusive, str::FromStr};

use crate::protocol::TUNING_SEED;

/// A run of seeds: `3` is 0, 1 and 2; `3-5` is 3, 4 and 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a number of seeds, or the first and the last below {TUNING_SEED}: 3, 3-5");
        let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (0, number(text)?.checked_sub(1).ok_or_else(expected)?),
        };
        if first <= last && last < TUNING_SEED { Ok(Self(first..=last)) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!("3".parse(), Ok(Seeds(0..=2)));
        assert_eq!("3-5".parse(), Ok(Seeds(3..=5)));
        assert_eq!("7-7".parse(), Ok(Seeds(7..=7)));
        for wrong in ["0", "", "5-3", "-1", "1-", "a", "1000-1000", "1001"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
    }
}
