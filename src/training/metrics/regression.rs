//! Correlation and error of predicted numbers.

use super::{Metrics, Score, check_lengths};
use crate::{Error, Result};

/// Predictions of one number for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    targets: Vec<f64>,
    predictions: Vec<f64>,
}

impl Regression {
    /// Compares numbers, row by row.
    ///
    /// # Errors
    /// No targets, another number of predictions, or a number that is not finite.
    pub fn new(targets: &[f32], predictions: &[f32]) -> Result<Self> {
        check_lengths("regression metrics", targets.len(), predictions.len())?;
        Ok(Self { targets: finite("target", targets)?, predictions: finite("prediction", predictions)? })
    }

    /// Pearson's linear correlation, between -1 and 1; `None` if all targets or all predictions are equal: it is
    /// undefined then.
    pub fn pearson(&self) -> Option<f64> {
        correlation(&self.targets, &self.predictions)
    }

    /// Spearman's rank correlation, between -1 and 1: equal numbers share the mean of their ranks. `None` as for
    /// [`Self::pearson`].
    pub fn spearman(&self) -> Option<f64> {
        correlation(&ranks(&self.targets), &ranks(&self.predictions))
    }

    /// The mean of the squared differences, in squared units of the targets.
    pub fn mean_squared_error(&self) -> f64 {
        let squares =
            self.targets.iter().zip(&self.predictions).map(|(target, prediction)| (target - prediction).powi(2));
        squares.sum::<f64>() / self.targets.len() as f64
    }

    /// The mean squared error of a model that always answers the mean of the targets: their (population) variance.
    pub fn mean_baseline(&self) -> f64 {
        centred(&self.targets).iter().map(|value| value * value).sum::<f64>() / self.targets.len() as f64
    }

    /// `pearson`, `spearman` and `mse`, beside those of a model that always answers the mean of the targets; Pearson
    /// selects. An undefined correlation counts as 0: a constant says nothing about the order of the targets.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(Score::highest("pearson", self.pearson().unwrap_or(0.0)).with_baseline(0.0))
            .with(Score::highest("spearman", self.spearman().unwrap_or(0.0)).with_baseline(0.0))
            .with(Score::lowest("mse", self.mean_squared_error()).with_baseline(self.mean_baseline()))
    }
}

/// The numbers in double precision; all must be finite.
fn finite(what: &str, values: &[f32]) -> Result<Vec<f64>> {
    if let Some((row, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(Error::input(
            "regression metrics",
            format!("the {what} of row {row} is {value}, expected a number"),
        ));
    }
    Ok(values.iter().copied().map(f64::from).collect())
}

/// The differences from the mean.
fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| value - mean).collect()
}

fn correlation(left: &[f64], right: &[f64]) -> Option<f64> {
    // Compares the values and not the differences: a rounded mean may differ a little from a constant.
    let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if constant(left) || constant(right) {
        return None;
    }
    let (left, right) = (unit(centred(left)), unit(centred(right)));
    let product: f64 = left.iter().zip(&right).map(|(left, right)| left * right).sum();
    Some(product.clamp(-1.0, 1.0))
}

/// The vector at length 1.
fn unit(values: Vec<f64>) -> Vec<f64> {
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| value / norm).collect()
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&left, &right| values[left].total_cmp(&values[right]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    // Compared by `==`: the total order takes -0.0 and 0.0 for different numbers.
    for ties in order.chunk_by(|&left, &right| values[left] == values[right]) {
        let rank = below as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|&row| ranks[row] = rank);
        below += ties.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Expected values: pearsonr and spearmanr of scipy 1.17.1, mean_squared_error of scikit-learn 1.9.1 and var of
    // numpy 2.4.6. Both lists have ties.
    #[test]
    fn equals_scipy() {
        let targets = [1.0, 2.5, 2.5, 4.0, 0.25, -1.0, 3.0, 2.5];
        let predictions = [0.5, 2.0, 3.0, 3.5, 0.5, 0.5, 2.75, -0.125];
        let evaluation = Regression::new(&targets, &predictions).unwrap();
        // Sums of eight products, rounded in another order.
        assert!((evaluation.pearson().unwrap() - 0.7078086562569906).abs() < 1e-14);
        assert!((evaluation.spearman().unwrap() - 0.675).abs() < 1e-14);
        assert_eq!(evaluation.mean_squared_error(), 1.283203125);
        assert_eq!(evaluation.mean_baseline(), 2.3271484375);
        let metrics = evaluation.metrics();
        assert_eq!(metrics.selected().name, "pearson");
        assert_eq!(metrics.scores()[2], Score::lowest("mse", 1.283203125).with_baseline(2.3271484375));
    }

    #[test]
    fn ties_share_the_mean_rank() {
        assert_eq!(ranks(&[2.0, 1.0, 2.0, 3.0, 2.0]), [3.0, 1.0, 3.0, 5.0, 3.0]);
        assert_eq!(ranks(&[0.0, -0.0]), [1.5, 1.5]);
    }

    #[test]
    fn constants_have_no_correlation() {
        let evaluation = Regression::new(&[1.0, 2.0, 3.0], &[0.1; 3]).unwrap();
        assert_eq!((evaluation.pearson(), evaluation.spearman()), (None, None));
        let json = serde_json::to_value(evaluation.metrics()).unwrap();
        assert_eq!((&json["pearson"], &json["spearman"]), (&0.0.into(), &0.0.into()));
    }

    #[test]
    fn refuses_numbers_that_are_none() {
        let error = Regression::new(&[1.0, 2.0], &[1.0, f32::NAN]).unwrap_err().to_string();
        assert_eq!(error, "regression metrics: the prediction of row 1 is NaN, expected a number");
        let error = Regression::new(&[f32::INFINITY], &[1.0]).unwrap_err().to_string();
        assert_eq!(error, "regression metrics: the target of row 0 is inf, expected a number");
        assert!(Regression::new(&[], &[]).is_err());
    }

    proptest! {
        #[test]
        fn correlations_are_bounded_symmetric_and_blind_to_order(
            mut rows in prop::collection::vec((-9..9i8, -9..9i8), 1..30),
            turn in 0..30usize,
        ) {
            let evaluate = |rows: &[(i8, i8)]| {
                let (targets, predictions): (Vec<_>, Vec<_>) =
                    rows.iter().map(|&(target, prediction)| (f32::from(target), f32::from(prediction))).unzip();
                let ours = Regression::new(&targets, &predictions).unwrap();
                let swapped = Regression::new(&predictions, &targets).unwrap();
                assert_eq!((ours.pearson(), ours.spearman()), (swapped.pearson(), swapped.spearman()));
                [ours.pearson(), ours.spearman()]
            };
            let before = evaluate(&rows);
            let turn = turn % rows.len();
            rows.rotate_left(turn);
            for (before, after) in before.into_iter().zip(evaluate(&rows)) {
                prop_assert_eq!(before.is_some(), after.is_some());
                prop_assert!((before.unwrap_or(0.0) - after.unwrap_or(0.0)).abs() < 1e-14);
                prop_assert!(before.is_none_or(|value| (-1.0..=1.0).contains(&value)));
            }
        }

        #[test]
        fn rising_functions_keep_the_order(targets in prop::collection::hash_set(-50..50i8, 2..30)) {
            let targets: Vec<f32> = targets.into_iter().map(f32::from).collect();
            let cubes: Vec<f32> = targets.iter().map(|value| value.powi(3)).collect();
            let lines: Vec<f32> = targets.iter().map(|value| 1.0 - 2.0 * value).collect();
            prop_assert!((Regression::new(&targets, &cubes).unwrap().spearman().unwrap() - 1.0).abs() < 1e-14);
            prop_assert!((Regression::new(&targets, &lines).unwrap().pearson().unwrap() + 1.0).abs() < 1e-14);
            let perfect = Regression::new(&targets, &targets).unwrap();
            prop_assert!((perfect.pearson().unwrap() - 1.0).abs() < 1e-14);
            prop_assert_eq!(perfect.mean_squared_error(), 0.0);
        }
    }
}
