//! What a run remembers between steps, apart from model and optimiser.

use serde::{Deserialize, Serialize};

use super::{learner::TrainStepReport, metrics::Score, report::Report, run::Run, settings::TrainingSettings};
use crate::{Error, Precision};

/// A run ends after this many steps in a row without finite gradients; none of them changed the model. A few such steps
/// are normal in f16, until the scale of the loss is found.
const MOST_SKIPPED: usize = 20;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The bits of the best figure, because a number in JSON may lose its last digit.
    best: Option<u64>,
    /// The step of the model that is kept; 0 for none.
    pub best_step: usize,
    without_improvement: usize,
    /// Whether training is over because nothing improved.
    pub stopped: bool,
    /// Tokens seen.
    tokens: usize,
    /// Steps in a row whose gradients were not finite.
    skipped: usize,
    /// The number of devices, unknown before the run begins and in files of earlier versions.
    devices: Option<usize>,
    /// Sums since the last report. They are empty whenever a run is saved, because a report comes first.
    #[serde(skip)]
    sums: Sums,
}

/// The sums of what steps report.
#[derive(Clone, Debug, Default)]
struct Sums {
    steps: usize,
    loss: f64,
    parts: Vec<(&'static str, f64)>,
}

impl Sums {
    fn add(&mut self, step: &TrainStepReport) {
        self.steps += 1;
        self.loss += step.loss;
        if self.parts.is_empty() {
            self.parts.clone_from(&step.parts);
        } else {
            self.parts.iter_mut().zip(&step.parts).for_each(|((_, sum), (_, part))| *sum += part);
        }
    }
}

impl Progress {
    /// Goes on with so many devices. Returns what there is to say if the run was saved on another number.
    pub fn continue_on(&mut self, devices: usize) -> Option<String> {
        let before = self.devices.replace(devices).filter(|&before| before != devices)?;
        Some(format!(
            "the number of devices was {before} when the run was saved and is {devices} now: a step has the same batches, but \
             the result is the same within rounding only"
        ))
    }

    /// Adds a step on `tokens` tokens.
    pub fn add(&mut self, step: &TrainStepReport, tokens: usize) {
        self.sums.add(step);
        self.tokens += tokens;
        self.skipped = if step.gradient_norm.is_finite() { 0 } else { self.skipped + 1 };
    }

    /// Why the run has to end after this step; none if it goes on.
    pub fn failure(&self, step: &TrainStepReport) -> Option<String> {
        let mut losses = [("loss", step.loss)].into_iter().chain(step.parts.iter().copied());
        if let Some((name, value)) = losses.find(|(_, value)| !value.is_finite()) {
            return Some(format!("the {} is {value}", name.replace('_', " ")));
        }
        (self.skipped >= MOST_SKIPPED)
            .then(|| format!("no gradients of the last {MOST_SKIPPED} steps are finite, though the loss is"))
    }

    /// The error that ends the run: what happened, the likely reasons, and which model is kept.
    pub fn diverged(&self, step: usize, what: &str, settings: &TrainingSettings, run: &Run<'_>) -> Error {
        let precision = match settings.precision {
            Precision::F16 => ", f16 ends at 65504 (--precision bf16 or f32)",
            _ => "",
        };
        let kept = match self.best_step {
            0 => "no model was kept, for none had been evaluated (--evaluate-every)".to_owned(),
            step => format!("the best model so far, of step {step}, is in {}", run.output.display()),
        };
        let problem = format!(
            "{what}. Likely the learning rate is too high (--learning-rate is {}: lower it, or warm up longer){precision}, \
             or labels or weights hold extreme numbers; {kept}",
            settings.learning_rate
        );
        Error::Diverged { step, problem }
    }

    /// A line of `metrics.csv`, with the mean losses since the line before.
    pub fn report(&mut self, done: usize, step: &TrainStepReport, steps_per_epoch: f64) -> Report {
        let Sums { steps, loss, parts } = std::mem::take(&mut self.sums);
        let report = Report::new(done, done as f64 / steps_per_epoch)
            .with("learning_rate", step.learning_rate)
            .with("train_loss", loss / steps as f64)
            .with("grad_norm", step.gradient_norm)
            .with("tokens", self.tokens as f64);
        parts.into_iter().fold(report, |report, (name, sum)| report.with(name, sum / steps as f64))
    }

    /// Takes an evaluation into account. Returns whether the model is to be kept.
    pub fn take(&mut self, step: usize, score: Option<&Score>, patience: Option<usize>) -> bool {
        let improves = match (score, self.best) {
            (Some(score), Some(best)) => score.improves_on(f64::from_bits(best)),
            _ => true,
        };
        if improves {
            self.best = score.map(|score| score.value.to_bits());
            self.best_step = step;
            self.without_improvement = 0;
        } else {
            self.without_improvement += 1;
            self.stopped = patience.is_some_and(|patience| self.without_improvement >= patience);
        }
        improves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(loss: f64, gradient_norm: f64) -> TrainStepReport {
        TrainStepReport { loss, parts: vec![("adversarial_term", loss / 2.0)], gradient_norm, learning_rate: 0.1 }
    }

    #[test]
    fn a_loss_that_is_no_number_ends_a_run_and_some_gradients_do_not() {
        let mut progress = Progress::default();
        let mut add = |step: &TrainStepReport| {
            progress.add(step, 1);
            progress.failure(step)
        };
        assert_eq!(add(&step(f64::NAN, 1.0)), Some("the loss is NaN".to_owned()));
        let infinite = TrainStepReport { parts: vec![("adversarial_term", f64::INFINITY)], ..step(1.0, 1.0) };
        assert_eq!(add(&infinite), Some("the adversarial term is inf".to_owned()));
        for _ in 0..2 {
            (1..MOST_SKIPPED).for_each(|_| assert_eq!(add(&step(1.0, f64::INFINITY)), None));
            assert_eq!(add(&step(1.0, 1.0)), None);
        }
        (1..MOST_SKIPPED).for_each(|_| assert_eq!(add(&step(1.0, f64::NAN)), None));
        assert!(add(&step(1.0, f64::NAN)).is_some_and(|problem| problem.contains("no gradients")));
    }

    #[test]
    fn training_stops_when_nothing_improves() {
        let mut progress = Progress::default();
        let mut take = |step, value| {
            let best = progress.take(step, Some(&Score::highest("accuracy", value)), Some(2));
            (best, progress.best_step, progress.stopped)
        };
        assert_eq!(take(1, 0.5), (true, 1, false));
        assert_eq!(take(2, 0.5), (false, 1, false));
        assert_eq!(take(3, 0.6), (true, 3, false));
        assert_eq!(take(4, 0.1), (false, 3, false));
        assert_eq!(take(5, 0.6), (false, 3, true));
    }
}
