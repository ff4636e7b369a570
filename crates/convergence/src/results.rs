//! From what runs left to the figures of the report: rows, their spread over seeds, and how much sooner a loss is reached.

use std::{fs, path::Path};

use deberta_burn::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{
    protocol::RunSpec,
    variant::Variant,
    worker::{downstream_accuracy, has_diverged},
};

/// One evaluation of one run: a line of `results.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub variant: Variant,
    pub seed: u64,
    /// Optimiser steps.
    pub step: usize,
    /// Tokens of training text, special ones included and padding not.
    pub tokens: f64,
    /// Operations of training, by formula.
    pub flops: f64,
    /// Wall-clock time of training, evaluations not included.
    pub seconds: f64,
    /// Of the masked tokens of the validation text, where they are what the variant predicts.
    pub validation_loss: Option<f64>,
    pub validation_accuracy: Option<f64>,
    /// How much attention goes to neighbours, where that is watched: the mean of all heads, and the most of one.
    pub neighbour_attention: Option<f64>,
    pub best_neighbour_attention: Option<f64>,
    /// Of the model after fine-tuning, where it was fine-tuned.
    pub downstream_accuracy: Option<f64>,
}

/// What a run's `metrics.csv` says of an evaluation.
#[derive(Deserialize)]
struct Evaluation {
    step: usize,
    tokens: f64,
    tokens_per_second: f64,
    loss: f64,
    accuracy: f64,
    neighbour_attention: Option<f64>,
    best_neighbour_attention: Option<f64>,
}

/// The evaluations of a finished run; none of one that came to NaN.
///
/// # Errors
/// Files that are not what training writes.
pub fn read_run(folder: &Path, spec: &RunSpec, flops_per_step: f64) -> Result<Vec<Row>> {
    if has_diverged(folder) {
        return Ok(Vec::new());
    }
    let path = folder.join("metrics.csv");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mut rows: Vec<Row> = Vec::new();
    for evaluation in csv::Reader::from_reader(text.as_bytes()).into_deserialize() {
        let evaluation: Evaluation = evaluation.map_err(|error| {
            Error::file(&path, format!("{error}: remove the run's folder, so that it is run again"))
        })?;
        let (tokens, seconds) = rows.last().map_or((0.0, 0.0), |row| (row.tokens, row.seconds));
        let step = evaluation.step;
        rows.push(Row {
            variant: spec.variant,
            seed: spec.seed,
            step,
            tokens: evaluation.tokens,
            flops: step as f64 * flops_per_step,
            // The clock counts from one evaluation to the next, so that a run that was interrupted adds up, too.
            seconds: seconds + (evaluation.tokens - tokens) / evaluation.tokens_per_second,
            validation_loss: spec.variant.is_masked_lm().then_some(evaluation.loss),
            validation_accuracy: spec.variant.is_masked_lm().then_some(evaluation.accuracy),
            neighbour_attention: evaluation.neighbour_attention,
            best_neighbour_attention: evaluation.best_neighbour_attention,
            downstream_accuracy: match spec.checkpoints.contains(&step) {
                true => Some(downstream_accuracy(folder, step)?),
                false => None,
            },
        });
    }
    Ok(rows)
}

/// The rows as the text of a CSV file.
pub fn to_csv(rows: &[Row]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).expect("plain data, into memory");
    }
    String::from_utf8(writer.into_inner().expect("memory takes all of it")).expect("CSV of text is text")
}

/// What training is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    Steps,
    Tokens,
    Flops,
    Seconds,
}

impl Axis {
    pub const ALL: [Self; 4] = [Self::Steps, Self::Tokens, Self::Flops, Self::Seconds];

    pub fn of(self, row: &Row) -> f64 {
        match self {
            Self::Steps => row.step as f64,
            Self::Tokens => row.tokens,
            Self::Flops => row.flops,
            Self::Seconds => row.seconds,
        }
    }

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Tokens => "tokens",
            Self::Flops => "flops",
            Self::Seconds => "seconds",
        }
    }

    /// The name in the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Steps => "optimiser steps",
            Self::Tokens => "tokens of training text",
            Self::Flops => "floating-point operations",
            Self::Seconds => "wall-clock time, seconds",
        }
    }
}

/// Several values of one figure, one a seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    /// The sample standard deviation, where there are two values or more.
    pub deviation: Option<f64>,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    /// None without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (!values.is_empty()).then(|| Self {
            mean,
            deviation: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            lowest: values.iter().copied().fold(f64::INFINITY, f64::min),
            highest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// All rows of an experiment.
pub struct Results {
    pub rows: Vec<Row>,
}

impl Results {
    /// The variants, in the order of the table.
    pub fn variants(&self) -> Vec<Variant> {
        let mut variants: Vec<_> = self.rows.iter().map(|row| row.variant).collect();
        variants.sort_unstable();
        variants.dedup();
        variants
    }

    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<_> = self.rows.iter().map(|row| row.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// The evaluations of one run, in the order of steps.
    pub fn run(&self, variant: Variant, seed: u64) -> Vec<&Row> {
        self.rows.iter().filter(|row| (row.variant, row.seed) == (variant, seed)).collect()
    }

    /// A figure of the last evaluation, over the seeds.
    pub fn last(&self, variant: Variant, figure: impl Fn(&Row) -> Option<f64>) -> Option<Spread> {
        let last = |seed: &u64| figure(self.run(variant, *seed).last()?);
        Spread::of(&self.seeds().iter().filter_map(last).collect::<Vec<_>>())
    }

    /// How much of the axis a run takes to come down to a loss, on the straight line between the two evaluations around it;
    /// none if it never does.
    pub fn reaches(&self, variant: Variant, seed: u64, loss: f64, axis: Axis) -> Option<f64> {
        let run = self.run(variant, seed);
        let points: Vec<_> = run.iter().filter_map(|row| Some((axis.of(row), row.validation_loss?))).collect();
        let first = points.iter().position(|point| point.1 <= loss)?;
        let after = points[first];
        let Some(before) = first.checked_sub(1).map(|index| points[index]) else { return Some(after.0) };
        let share = (before.1 - loss) / (before.1 - after.1);
        Some(before.0 + share * (after.0 - before.0))
    }

    /// How many times less of the axis a variant takes than the baseline to reach the baseline's last loss, seed by seed; none
    /// where it never does. Of both it is the first time that counts.
    pub fn speed_ups(&self, variant: Variant, baseline: Variant, axis: Axis) -> Vec<Option<f64>> {
        let seeds = self.seeds();
        let speed_up = |seed: &u64| {
            let loss = self.run(baseline, *seed).last()?.validation_loss?;
            Some(self.reaches(baseline, *seed, loss, axis)? / self.reaches(variant, *seed, loss, axis)?)
        };
        seeds.iter().map(speed_up).collect()
    }

    /// Whether all runs of a seed were counted the same tokens at every evaluation, as they are if they read the same batches.
    pub fn same_tokens(&self) -> bool {
        let tokens =
            |variant, seed| self.run(variant, seed).iter().map(|row| (row.step, row.tokens)).collect::<Vec<_>>();
        let variants = self.variants();
        self.seeds()
            .iter()
            .all(|seed| variants.iter().all(|variant| tokens(*variant, *seed) == tokens(variants[0], *seed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with an evaluation every 10 steps, of 100 tokens, 1000 operations and 2 seconds a step.
    fn run(variant: Variant, seed: u64, losses: &[f64]) -> Vec<Row> {
        let row = |(index, loss): (usize, &f64)| {
            let step = 10 * (index + 1);
            let count = step as f64;
            Row {
                variant,
                seed,
                step,
                tokens: 100.0 * count,
                flops: 1000.0 * count,
                seconds: 2.0 * count,
                validation_loss: Some(*loss),
                validation_accuracy: Some(0.5),
                neighbour_attention: Some(0.25),
                best_neighbour_attention: Some(0.375),
                downstream_accuracy: (index % 2 == 1).then_some(0.75),
            }
        };
        losses.iter().enumerate().map(row).collect()
    }

    fn results() -> Results {
        let rows = [
            run(Variant::Roberta, 0, &[5.0, 4.0, 3.5, 3.0]),
            run(Variant::Roberta, 1, &[5.0, 4.0, 3.0, 2.0]),
            run(Variant::Deberta, 0, &[4.0, 2.0, 1.5, 1.0]),
            run(Variant::Deberta, 1, &[4.0, 3.0, 2.5, 2.25]),
        ];
        Results { rows: rows.concat() }
    }

    #[test]
    fn a_loss_is_reached_between_evaluations() {
        let results = results();
        let reaches = |loss, axis| results.reaches(Variant::Deberta, 0, loss, axis);
        // Half-way from 4 at step 10 to 2 at step 20.
        assert_eq!(reaches(3.0, Axis::Steps), Some(15.0));
        assert_eq!(reaches(3.0, Axis::Tokens), Some(1500.0));
        assert_eq!(reaches(3.0, Axis::Seconds), Some(30.0));
        assert_eq!(reaches(1.5, Axis::Steps), Some(30.0));
        // Before the first evaluation nothing is known.
        assert_eq!(reaches(4.5, Axis::Steps), Some(10.0));
        assert_eq!(reaches(0.5, Axis::Steps), None);
    }

    #[test]
    fn speed_ups_compare_runs_of_one_seed() {
        let speed_ups = results().speed_ups(Variant::Deberta, Variant::Roberta, Axis::Steps);
        // Seed 0: 40 steps against 15 for a loss of 3. Seed 1: 2 is never reached.
        assert_eq!(speed_ups, [Some(40.0 / 15.0), None]);
        assert_eq!(results().speed_ups(Variant::Roberta, Variant::Roberta, Axis::Flops), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn spreads_are_those_of_a_sample() {
        let spread = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { mean: 2.0, deviation: Some(1.0), lowest: 1.0, highest: 3.0 });
        assert_eq!(Spread::of(&[2.0]).unwrap().deviation, None);
        assert_eq!(Spread::of(&[]), None);
        let last = results().last(Variant::Roberta, |row| row.validation_loss).unwrap();
        assert_eq!((last.mean, last.lowest, last.highest), (2.5, 2.0, 3.0));
    }

    #[test]
    fn rows_survive_a_csv_file() {
        let rows = results().rows;
        let text = to_csv(&rows);
        let header = "variant,seed,step,tokens,flops,seconds,validation_loss,validation_accuracy,neighbour_attention,\
                      best_neighbour_attention,downstream_accuracy";
        assert_eq!(text.lines().next(), Some(header));
        assert_eq!(text.lines().nth(1), Some("roberta,0,10,1000.0,10000.0,20.0,5.0,0.5,0.25,0.375,"));
        let read: Vec<Row> =
            csv::Reader::from_reader(text.as_bytes()).into_deserialize().map(|row| row.expect("a row")).collect();
        assert_eq!(read, rows);
    }

    #[test]
    fn other_batches_are_noticed() {
        assert!(results().same_tokens());
        let mut results = results();
        results.rows[1].tokens += 1.0;
        assert!(!results.same_tokens());
    }
}
