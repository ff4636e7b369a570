//! Numbers of settings, refused by the name of their flag where they are out of range.

use std::ops::RangeInclusive;

use crate::{Error, Result};

/// Refuses a number that does not fit.
pub(super) fn number(flag: &str, value: f64, fits: bool, expected: &str) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::value(flag, value, format_args!("a number {expected}"))),
    }
}

pub(super) fn positive(flag: &str, value: f64) -> Result<()> {
    number(flag, value, value > 0.0 && value.is_finite(), "above 0")
}

pub(super) fn not_negative(flag: &str, value: f64) -> Result<()> {
    number(flag, value, value >= 0.0 && value.is_finite(), "of at least 0")
}

/// Refuses a whole number outside its range.
pub(super) fn count(flag: &str, value: usize, range: RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let bound =
        if value < *range.start() { format!("at least {}", range.start()) } else { format!("at most {}", range.end()) };
    Err(Error::value(flag, value, bound))
}
