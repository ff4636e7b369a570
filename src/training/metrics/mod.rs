//! Figures for predictions, computed as the field's own evaluation programs do, from slices on the host.
//!
//! Each task has one type, made from targets and predictions. It gives single figures, or all of them as [`Metrics`]
//! for a training loop: [`Classification`], [`MultiLabel`], [`Regression`], [`Entities`],
//! [`EntityCounts`], [`AnswerSpans`], [`Ranking`], [`Retrieval`]. All rates
//! are fractions between 0 and 1, even if the original program prints percentages.

mod classification;
mod counts;
mod entities;
mod ranking;
mod regression;
mod retrieval;
mod squad;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{Error, Result};

pub use classification::{Classification, MultiLabel};
pub use counts::Counts;
pub use entities::{Entities, EntityCounts};
pub use ranking::Ranking;
pub use regression::Regression;
pub use retrieval::Retrieval;
pub use squad::{AnswerSpans, Group};

/// Whether higher or lower figures are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Higher is better: accuracy, F1, correlation.
    Highest,
    /// Lower is better: loss, error.
    Lowest,
}

/// One figure of an evaluation, with the figure of a model that ignores its input beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Name, as a JSON key and as a CSV column: `accuracy`, `f1_PER`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The figure of the best guess that ignores the input; `None` if there is no such guess.
    pub baseline: Option<f64>,
    /// Which direction is better.
    pub goal: Goal,
}

impl Score {
    /// A figure that is better if it is higher.
    pub fn highest(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, baseline: None, goal: Goal::Highest }
    }

    /// A figure that is better if it is lower.
    pub fn lowest(name: impl Into<String>, value: f64) -> Self {
        Self { goal: Goal::Lowest, ..Self::highest(name, value) }
    }

    /// The same figure with its baseline.
    pub fn with_baseline(self, baseline: f64) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    /// Whether the figure is strictly better than `other`, an earlier value of the same one. NaN is never better,
    /// and anything else is better than NaN.
    pub fn improves_on(&self, other: f64) -> bool {
        let better = match self.goal {
            Goal::Highest => self.value > other,
            Goal::Lowest => self.value < other,
        };
        better || (other.is_nan() && !self.value.is_nan())
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:.4}", self.name, self.value)?;
        match self.baseline {
            Some(baseline) => write!(formatter, " (baseline {baseline:.4})"),
            None => Ok(()),
        }
    }
}

/// The figures of one evaluation, in the order in which they are to be shown. One of them selects the best model: the
/// first, unless [`Metrics::select_by`] says otherwise.
///
/// As JSON it is an object from names to values, without the baselines (for those, serialise [`Metrics::scores`]); a
/// value that is not finite, such as the loss of a model that diverged, is `null` there. With [`fmt::Display`] it is a
/// table.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    scores: Vec<Score>,
    selected: usize,
}

impl Metrics {
    /// Starts with the figure that selects the best model.
    pub fn new(selected: Score) -> Self {
        Self { scores: vec![selected], selected: 0 }
    }

    /// Adds a figure at the end.
    pub fn with(mut self, score: Score) -> Self {
        self.scores.push(score);
        self
    }

    /// Lets another figure select the best model.
    ///
    /// # Errors
    /// No figure has that name.
    pub fn select_by(mut self, name: &str) -> Result<Self> {
        self.selected = self.scores.iter().position(|score| score.name == name).ok_or_else(|| {
            let names: Vec<_> = self.scores.iter().map(|score| score.name.as_str()).collect();
            Error::input(
                format!("metric `{name}`"),
                format!("the evaluation has no such figure, expected one of {}", names.join(", ")),
            )
        })?;
        Ok(self)
    }

    /// All figures.
    pub fn scores(&self) -> &[Score] {
        &self.scores
    }

    /// The figure that selects the best model.
    pub fn selected(&self) -> &Score {
        &self.scores[self.selected]
    }

    /// The value of the figure with this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|score| score.name == name).map(|score| score.value)
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.scores.iter().map(|score| (&score.name, score.value)))
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.scores.iter().map(|score| score.name.chars().count()).max().unwrap_or(0).max("metric".len());
        write!(formatter, "{:width$}  {:>9}  {:>9}", "metric", "value", "baseline")?;
        for Score { name, value, baseline, .. } in &self.scores {
            let baseline = baseline.map_or("-".to_owned(), |baseline| format!("{baseline:.4}"));
            write!(formatter, "\n{name:width$}  {value:>9.4}  {baseline:>9}")?;
        }
        Ok(())
    }
}

/// Checks that there are targets, and a prediction for each.
fn check_lengths(of: &str, targets: usize, predictions: usize) -> Result<()> {
    if targets == 0 {
        return Err(Error::input(of, "there are no targets, expected at least one to evaluate on"));
    }
    if targets != predictions {
        return Err(Error::input(of, format!("{predictions} predictions for {targets} targets, expected one each")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Score::highest("accuracy", 0.75).with_baseline(0.5)).with(Score::lowest("loss", 0.25))
    }

    #[test]
    fn is_a_json_object_in_order() {
        assert_eq!(serde_json::to_string(&metrics()).unwrap(), r#"{"accuracy":0.75,"loss":0.25}"#);
        let diverged = Metrics::new(Score::lowest("loss", f64::NAN));
        assert_eq!(serde_json::to_string(&diverged).unwrap(), r#"{"loss":null}"#);
    }

    #[test]
    fn shows_each_figure_beside_its_baseline() {
        assert_eq!(metrics().scores()[0].to_string(), "accuracy 0.7500 (baseline 0.5000)");
        let table = "\
metric        value   baseline
accuracy     0.7500     0.5000
loss         0.2500          -";
        assert_eq!(metrics().to_string(), table);
    }

    #[test]
    fn selects_by_the_first_or_by_name() {
        assert_eq!(metrics().selected().name, "accuracy");
        let by_loss = metrics().select_by("loss").unwrap();
        assert_eq!(by_loss.selected().name, "loss");
        assert_eq!(by_loss.get("accuracy"), Some(0.75));
        let error = metrics().select_by("f1").unwrap_err().to_string();
        assert_eq!(error, "metric `f1`: the evaluation has no such figure, expected one of accuracy, loss");
    }

    #[test]
    fn better_means_higher_or_lower() {
        assert!(Score::highest("accuracy", 0.75).improves_on(0.5));
        assert!(!Score::highest("accuracy", 0.75).improves_on(0.75));
        assert!(Score::lowest("loss", 0.5).improves_on(0.75));
        assert!(!Score::lowest("loss", 0.75).improves_on(0.5));
        assert!(!Score::lowest("loss", f64::NAN).improves_on(0.5));
        assert!(Score::lowest("loss", 9.0).improves_on(f64::NAN));
        assert!(!Score::lowest("loss", f64::NAN).improves_on(f64::NAN));
    }
}
