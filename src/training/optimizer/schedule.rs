//! The learning rate as a function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What the learning rate does after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Falls in a straight line to 0 at the end.
    #[default]
    Linear,
    /// Falls to 0 at the end along half a cosine wave.
    Cosine,
    /// Stays the same.
    Constant,
}

/// How long the learning rate rises, in a straight line from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Warmup {
    /// This many steps.
    Steps(usize),
    /// This share of all steps, between 0 and 1, rounded up to whole steps.
    Ratio(f64),
}

/// A learning rate schedule with warmup, equal to transformers' `get_linear_schedule_with_warmup`,
/// `get_cosine_schedule_with_warmup` (half a wave) and `get_constant_schedule_with_warmup`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Schedule {
    kind: ScheduleKind,
    peak: f64,
    warmup: usize,
    total: usize,
}

impl Schedule {
    /// A schedule that rises to `peak` and ends after `total` optimiser steps, warmup included.
    ///
    /// # Errors
    /// A peak that is not above 0, no steps, a ratio outside 0 to 1, or a warmup longer than all of training.
    pub fn new(kind: ScheduleKind, warmup: Warmup, peak: f64, total: usize) -> Result<Self> {
        if !(peak > 0.0 && peak.is_finite()) {
            return Err(Error::value("learning rate", peak, "a number above 0"));
        }
        if total == 0 {
            return Err(Error::setting("training steps", "there are 0, expected at least 1"));
        }
        let warmup = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) if (0.0..=1.0).contains(&ratio) => (ratio * total as f64).ceil() as usize,
            Warmup::Ratio(ratio) => {
                return Err(Error::value("warmup ratio", ratio, "a share between 0 and 1"));
            }
        };
        if warmup > total {
            let problem =
                format!("{warmup} steps are more than the {total} of training: warm up shorter or train longer");
            return Err(Error::setting("warmup", problem));
        }
        Ok(Self { kind, peak, warmup, total })
    }

    /// The learning rate of an optimiser step, counted from 0 to `total - 1`. With warmup, step 0 has a rate of 0.
    /// After the end, a rate that has fallen to 0 stays there (the cosine of transformers would rise again).
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        // The share of training that is done: 0 at the end of warmup, 1 at the end.
        let progress =
            if step < self.total { (step - self.warmup) as f64 / (self.total - self.warmup) as f64 } else { 1.0 };
        let factor = match self.kind {
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::Constant => 1.0,
        };
        self.peak * factor
    }

    /// Steps of warmup.
    pub fn warmup(&self) -> usize {
        self.warmup
    }

    /// All steps of training, warmup included.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learning rates of transformers 5.23.0 (torch 2.15.0), read from an optimiser with lr 2e-5 before each of 11 steps.
    /// The two programs round in another order: a few units in the last of 16 digits.
    fn assert_rates(schedule: &Schedule, expected: [f64; 11]) {
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = schedule.learning_rate(step);
            assert!((rate - expected).abs() < 1e-15 * 2e-5 * 4.0, "step {step}: {rate} instead of {expected}");
        }
    }

    fn schedule(kind: ScheduleKind, warmup: Warmup) -> Schedule {
        Schedule::new(kind, warmup, 2e-5, 10).unwrap()
    }

    #[test]
    fn linear_equals_transformers() {
        let expected = [
            0.0,
            6.666666666666667e-6,
            1.3333333333333333e-5,
            2e-5,
            1.7142857142857142e-5,
            1.4285714285714287e-5,
            1.1428571428571429e-5,
            8.571428571428571e-6,
            5.7142857142857145e-6,
            2.8571428571428573e-6,
            0.0,
        ];
        assert_rates(&schedule(ScheduleKind::Linear, Warmup::Steps(3)), expected);
    }

    #[test]
    fn cosine_equals_transformers() {
        let expected = [
            0.0,
            6.666666666666667e-6,
            1.3333333333333333e-5,
            2e-5,
            1.900968867902419e-5,
            1.6234898018587336e-5,
            1.2225209339563144e-5,
            7.774790660436857e-6,
            3.7651019814126656e-6,
            9.903113209758098e-7,
            0.0,
        ];
        assert_rates(&schedule(ScheduleKind::Cosine, Warmup::Ratio(0.25)), expected);
    }

    #[test]
    fn constant_equals_transformers() {
        let expected =
            [0.0, 6.666666666666667e-6, 1.3333333333333333e-5, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5, 2e-5];
        assert_rates(&schedule(ScheduleKind::Constant, Warmup::Steps(3)), expected);
    }

    #[test]
    fn may_start_at_the_peak_or_warm_up_all_the_way() {
        let expected = [2e-5, 1.8e-5, 1.6e-5, 1.4e-5, 1.2e-5, 1e-5, 8e-6, 6e-6, 4e-6, 2e-6, 0.0];
        assert_rates(&schedule(ScheduleKind::Linear, Warmup::Steps(0)), expected);
        let expected = [0.0, 2e-6, 4e-6, 6e-6, 8e-6, 1e-5, 1.2e-5, 1.4e-5, 1.6e-5, 1.8e-5, 0.0];
        assert_rates(&schedule(ScheduleKind::Linear, Warmup::Ratio(1.0)), expected);
    }

    #[test]
    fn stays_at_zero_after_the_end() {
        assert_eq!(schedule(ScheduleKind::Linear, Warmup::Steps(3)).learning_rate(usize::MAX), 0.0);
        assert_eq!(schedule(ScheduleKind::Cosine, Warmup::Steps(3)).learning_rate(12), 0.0);
    }

    #[test]
    fn ratios_round_up() {
        assert_eq!(schedule(ScheduleKind::Linear, Warmup::Ratio(0.21)).warmup(), 3);
        assert_eq!(schedule(ScheduleKind::Linear, Warmup::Ratio(0.0)).warmup(), 0);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let error =
            |warmup, peak, total| Schedule::new(ScheduleKind::Linear, warmup, peak, total).unwrap_err().to_string();
        assert_eq!(
            error(Warmup::Steps(11), 1e-5, 10),
            "warmup: 11 steps are more than the 10 of training: warm up shorter or train longer"
        );
        assert_eq!(error(Warmup::Ratio(1.5), 1e-5, 10), "warmup ratio: it is 1.5, expected a share between 0 and 1");
        assert_eq!(
            error(Warmup::Ratio(f64::NAN), 1e-5, 10),
            "warmup ratio: it is NaN, expected a share between 0 and 1"
        );
        assert_eq!(error(Warmup::Steps(1), -1e-5, 10), "learning rate: it is -0.00001, expected a number above 0");
        assert_eq!(error(Warmup::Steps(0), 1e-5, 0), "training steps: there are 0, expected at least 1");
    }
}
