//! How many tokens a batch should have: few, so that nobody waits for long, but enough for the device to be busy.

use std::time::{Duration, Instant};

use crate::{Result, batch::Encoding};

/// The sizes that are tried.
const BUDGETS: [usize; 4] = [32, 128, 512, 2048];
/// The longest sequence that is tried: long ones cost more a token, whatever the budget.
const LONGEST: usize = 128;
/// The share of the best rate that is good enough.
const ENOUGH: f64 = 0.95;
/// All sizes are tried again for so long, but at least twice: what else the machine does now and then must not decide.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// The smallest budget that reaches 95 % of the best rate.
    pub budget: usize,
    /// Its rate in tokens a second.
    pub rate: f64,
}

/// Measures the rate of batches of 32 to 2,048 tokens, the best of some rounds over all sizes. `sample` makes a sequence of at
/// most the number of tokens that it is given.
///
/// # Errors
/// What the model or `sample` fails with.
pub fn calibrate(
    forward: impl Fn(&[&Encoding]) -> Result<Vec<Vec<f32>>>,
    sample: impl Fn(usize) -> Result<Encoding>,
) -> Result<Calibration> {
    let sequences = BUDGETS.map(|budget| sample(budget.min(LONGEST)));
    let sequences = sequences.into_iter().collect::<Result<Vec<_>>>()?;
    let mut measured = BUDGETS.map(|budget| Calibration { budget, rate: 0.0 });
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < 2 || start.elapsed() < PATIENCE {
        for (Calibration { budget, rate }, sequence) in measured.iter_mut().zip(&sequences) {
            let batch = vec![sequence; (*budget / sequence.len()).max(1)];
            let start = Instant::now();
            forward(&batch)?;
            let seconds = start.elapsed().as_secs_f64().max(1e-9);
            *rate = rate.max((batch.len() * sequence.len()) as f64 / seconds);
        }
        rounds += 1;
    }
    Ok(smallest(&measured))
}

/// The smallest budget that is good enough.
fn smallest(measured: &[Calibration]) -> Calibration {
    let best = measured.iter().map(|one| one.rate).fold(0.0, f64::max);
    *measured.iter().find(|one| one.rate >= ENOUGH * best).expect("the best one is good enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_budget_that_is_good_enough_is_taken() {
        let measured = |rates: [f64; 4]| {
            BUDGETS.into_iter().zip(rates).map(|(budget, rate)| Calibration { budget, rate }).collect::<Vec<_>>()
        };
        assert_eq!(smallest(&measured([500.0, 955.0, 1000.0, 990.0])).budget, 128);
        assert_eq!(smallest(&measured([1.0, 2.0, 4.0, 8.0])).budget, 2048);
        assert_eq!(smallest(&measured([8.0, 4.0, 2.0, 1.0])).budget, 32);
    }
}
