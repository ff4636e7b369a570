//! Accuracy, F1 and Matthews correlation of class predictions.

use std::collections::BTreeMap;

use super::{
    Counts, Metrics, Score, check_lengths,
    counts::{macro_f1, ratio},
};
use crate::{Error, Result};

/// Predictions of one class for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    rows: usize,
    /// The classes that occur in the targets or in the predictions.
    classes: BTreeMap<usize, Counts>,
}

impl Classification {
    /// Compares class indices, row by row.
    ///
    /// # Errors
    /// No targets, or another number of predictions.
    pub fn new(targets: &[usize], predictions: &[usize]) -> Result<Self> {
        check_lengths("classification metrics", targets.len(), predictions.len())?;
        let mut classes = BTreeMap::<usize, Counts>::new();
        for (&target, &prediction) in targets.iter().zip(predictions) {
            if target == prediction {
                classes.entry(target).or_default().add(true, true);
            } else {
                classes.entry(target).or_default().add(true, false);
                classes.entry(prediction).or_default().add(false, true);
            }
        }
        Ok(Self { rows: targets.len(), classes })
    }

    /// The share of rows whose class is right.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct(), self.rows)
    }

    /// The mean F1 over the classes that occur in the targets or in the predictions: scikit-learn's
    /// `f1_score(average="macro")` where `labels` is not given. A class that occurs in neither is left out.
    pub fn macro_f1(&self) -> f64 {
        macro_f1(self.classes.values())
    }

    /// Matthews correlation for any number of classes (Gorodkin 2004, "Comparing two K-category assignments by a
    /// K-category correlation coefficient"), between -1 and 1. If all targets or all predictions are of one class, it
    /// is undefined and counts as 0, as in scikit-learn.
    pub fn matthews_correlation(&self) -> f64 {
        let rows = self.rows as f64;
        // Rows times rows, minus the pairs of rows of one class: rows² times the variance of the assignment.
        let spread = |count: fn(&Counts) -> usize| {
            rows * rows - self.classes.values().map(|counts| (count(counts) as f64).powi(2)).sum::<f64>()
        };
        let chance: f64 = self.classes.values().map(|counts| counts.targets as f64 * counts.predictions as f64).sum();
        let covariance = self.correct() as f64 * rows - chance;
        let product = spread(|counts| counts.targets) * spread(|counts| counts.predictions);
        if product == 0.0 { 0.0 } else { (covariance / product.sqrt()).clamp(-1.0, 1.0) }
    }

    /// The figures of a model that always answers the most frequent class of the targets.
    pub fn majority(&self) -> Self {
        let occurring = self.classes.iter().filter(|(_, counts)| counts.targets > 0);
        let majority = occurring.clone().max_by_key(|(_, counts)| counts.targets).map(|(&class, _)| class);
        let classes = occurring.map(|(&class, &Counts { targets, .. })| {
            let (predictions, correct) = if majority == Some(class) { (self.rows, targets) } else { (0, 0) };
            (class, Counts { targets, predictions, correct })
        });
        Self { rows: self.rows, classes: classes.collect() }
    }

    /// `accuracy`, `macro_f1` and `matthews_correlation`, beside those of [`Self::majority`]; accuracy selects.
    pub fn metrics(&self) -> Metrics {
        let majority = self.majority();
        let score =
            |name, figure: fn(&Self) -> f64| Score::highest(name, figure(self)).with_baseline(figure(&majority));
        Metrics::new(score("accuracy", Self::accuracy))
            .with(score("macro_f1", Self::macro_f1))
            .with(score("matthews_correlation", Self::matthews_correlation))
    }

    fn correct(&self) -> usize {
        self.classes.values().map(|counts| counts.correct).sum()
    }
}

/// Predictions of any number of labels for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiLabel {
    rows: usize,
    labels: Vec<Counts>,
    /// Rows whose labels are all right.
    exact: usize,
    /// Rows whose labels are the most frequent ones.
    usual: usize,
}

impl MultiLabel {
    /// Compares label sets, row by row: `[rows, labels]` row-major, true where the row has the label.
    ///
    /// # Errors
    /// No targets, another number of predictions, or a number of values that is no multiple of `labels`.
    pub fn new(targets: &[bool], predictions: &[bool], labels: usize) -> Result<Self> {
        const SUBJECT: &str = "multi-label metrics";
        check_lengths(SUBJECT, targets.len(), predictions.len())?;
        if labels == 0 || !targets.len().is_multiple_of(labels) {
            let problem = format!("{} targets, expected a whole number of rows of {labels} labels", targets.len());
            return Err(Error::input(SUBJECT, problem));
        }
        let rows = targets.len() / labels;
        let mut counts = vec![Counts::default(); labels];
        let mut exact = 0;
        for (target, prediction) in targets.chunks(labels).zip(predictions.chunks(labels)) {
            exact += usize::from(target == prediction);
            for ((counts, &target), &prediction) in counts.iter_mut().zip(target).zip(prediction) {
                counts.add(target, prediction);
            }
        }
        let frequent: Vec<bool> = counts.iter().map(|counts| is_frequent(counts, rows)).collect();
        let usual = targets.chunks(labels).filter(|row| *row == frequent).count();
        Ok(Self { rows, labels: counts, exact, usual })
    }

    /// F1 over the decisions on all labels together; 0 if there are no labels in targets and predictions.
    pub fn micro_f1(&self) -> f64 {
        self.labels.iter().copied().sum::<Counts>().f1()
    }

    /// The mean F1 over the labels that occur in the targets or in the predictions: scikit-learn's
    /// `f1_score(average="macro", zero_division=nan)`. (Its default counts the other labels as 0.)
    pub fn macro_f1(&self) -> f64 {
        macro_f1(&self.labels)
    }

    /// The share of rows whose labels are all right, also called subset accuracy.
    pub fn exact_match(&self) -> f64 {
        ratio(self.exact, self.rows)
    }

    /// The figures of a model that gives every row the labels that more than half of the targets have.
    pub fn most_frequent(&self) -> Self {
        let constant = |&counts: &Counts| {
            let frequent = is_frequent(&counts, self.rows);
            let (predictions, correct) = if frequent { (self.rows, counts.targets) } else { (0, 0) };
            Counts { targets: counts.targets, predictions, correct }
        };
        Self { labels: self.labels.iter().map(constant).collect(), exact: self.usual, ..*self }
    }

    /// `micro_f1`, `macro_f1` and `exact_match`, beside those of [`Self::most_frequent`]; micro F1 selects.
    pub fn metrics(&self) -> Metrics {
        let frequent = self.most_frequent();
        let score =
            |name, figure: fn(&Self) -> f64| Score::highest(name, figure(self)).with_baseline(figure(&frequent));
        Metrics::new(score("micro_f1", Self::micro_f1))
            .with(score("macro_f1", Self::macro_f1))
            .with(score("exact_match", Self::exact_match))
    }
}

/// Whether more than half of the target rows have the label.
fn is_frequent(label: &Counts, rows: usize) -> bool {
    2 * label.targets > rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rounding error of the same sum in another order.
    const TOLERANCE: f64 = 1e-14;

    fn assert_close(found: &[f64], expected: &[f64]) {
        let close = |(found, expected): (&f64, &f64)| (found - expected).abs() < TOLERANCE;
        let equal = found.len() == expected.len() && found.iter().zip(expected).all(close);
        assert!(equal, "{found:?} instead of {expected:?}");
    }

    fn values(metrics: &Metrics) -> Vec<f64> {
        metrics.scores().iter().map(|score| score.value).collect()
    }

    fn baselines(metrics: &Metrics) -> Vec<f64> {
        metrics.scores().iter().filter_map(|score| score.baseline).collect()
    }

    const TARGETS: [usize; 12] = [0, 1, 2, 2, 1, 0, 3, 2, 1, 1, 0, 2];
    const PREDICTIONS: [usize; 12] = [0, 2, 2, 2, 1, 0, 1, 1, 1, 0, 0, 5];

    // Expected values: accuracy_score, f1_score(average="macro") and matthews_corrcoef of scikit-learn 1.9.1.
    #[test]
    fn classification_equals_scikit_learn() {
        let metrics =
            |targets: &[usize], predictions: &[usize]| Classification::new(targets, predictions).unwrap().metrics();
        let several = metrics(&TARGETS, &PREDICTIONS);
        assert_close(&values(&several), &[0.5833333333333334, 0.38571428571428573, 0.43137254901960786]);
        assert_close(&baselines(&several), &[0.3333333333333333, 0.125, 0.0]);
        assert_eq!(several.selected().name, "accuracy");
        assert_close(
            &values(&metrics(&[0, 0, 1, 1, 1], &[1, 0, 1, 1, 0])),
            &[0.6, 0.5833333333333333, 0.16666666666666666],
        );
        assert_close(&values(&metrics(&[0, 1, 1], &[1, 0, 0])), &[0.0, 0.0, -1.0]);
        assert_close(&values(&metrics(&[1, 1, 1], &[1, 0, 1])), &[0.6666666666666666, 0.4, 0.0]);
    }

    // Expected values: f1_score(average="micro"), f1_score(average="macro", zero_division=nan) and accuracy_score of
    // scikit-learn 1.9.1. Nobody has or gets the fourth label.
    #[test]
    fn multi_label_equals_scikit_learn() {
        let targets = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]];
        let predictions = [[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]];
        let flat = |rows: [[u8; 4]; 5]| rows.concat().iter().map(|&value| value == 1).collect::<Vec<_>>();
        let metrics = MultiLabel::new(&flat(targets), &flat(predictions), 4).unwrap().metrics();
        assert_close(&values(&metrics), &[0.7692307692307693, 0.7555555555555555, 0.4]);
        assert_close(&baselines(&metrics), &[0.5454545454545454, 0.25, 0.2]);
        assert_eq!(metrics.selected().name, "micro_f1");
    }

    #[test]
    fn refuses_what_cannot_be_compared() {
        let error = Classification::new(&[], &[]).unwrap_err().to_string();
        assert_eq!(error, "classification metrics: there are no targets, expected at least one to evaluate on");
        let error = Classification::new(&[0, 1], &[0]).unwrap_err().to_string();
        assert_eq!(error, "classification metrics: 1 predictions for 2 targets, expected one each");
        let error = MultiLabel::new(&[true; 5], &[true; 5], 2).unwrap_err().to_string();
        assert_eq!(error, "multi-label metrics: 5 targets, expected a whole number of rows of 2 labels");
        assert!(MultiLabel::new(&[true], &[true], 0).is_err());
    }

    proptest! {
        #[test]
        fn classification_is_bounded_and_blind_to_order_and_names(
            mut rows in prop::collection::vec((0..4usize, 0..4usize), 1..40),
            turn in 0..40usize,
        ) {
            let evaluate = |rows: &[(usize, usize)]| {
                let (targets, predictions): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
                values(&Classification::new(&targets, &predictions).unwrap().metrics())
            };
            let before = evaluate(&rows);
            prop_assert!((0.0..=1.0).contains(&before[0]) && (0.0..=1.0).contains(&before[1]));
            prop_assert!((-1.0..=1.0).contains(&before[2]));
            let turn = turn % rows.len();
            rows.rotate_left(turn);
            prop_assert_eq!(&evaluate(&rows), &before);
            let renamed: Vec<_> = rows.iter().map(|&(target, prediction)| (9 - target, 9 - prediction)).collect();
            assert_close(&evaluate(&renamed), &before);
        }

        #[test]
        fn perfect_classification_is_1(targets in prop::collection::vec(0..5usize, 1..40)) {
            let evaluation = Classification::new(&targets, &targets).unwrap();
            prop_assert_eq!((evaluation.accuracy(), evaluation.macro_f1()), (1.0, 1.0));
            let several = targets.iter().any(|&class| class != targets[0]);
            assert_close(&[evaluation.matthews_correlation()], &[f64::from(several)]);
        }

        #[test]
        fn the_majority_is_the_best_constant(targets in prop::collection::vec(0..4usize, 1..40)) {
            let majority = Classification::new(&targets, &targets).unwrap().majority();
            let constants = (0..4).map(|class| Classification::new(&targets, &vec![class; targets.len()]).unwrap());
            let best = constants.map(|evaluation| evaluation.accuracy()).fold(0.0, f64::max);
            prop_assert_eq!(majority.accuracy(), best);
        }

        #[test]
        fn multi_label_is_bounded_and_perfect_at_the_targets(
            rows in prop::collection::vec(any::<[(bool, bool); 3]>(), 1..20),
        ) {
            let (targets, predictions): (Vec<_>, Vec<_>) = rows.concat().into_iter().unzip();
            let metrics = MultiLabel::new(&targets, &predictions, 3).unwrap().metrics();
            prop_assert!(values(&metrics).iter().chain(&baselines(&metrics)).all(|value| (0.0..=1.0).contains(value)));
            let perfect = values(&MultiLabel::new(&targets, &targets, 3).unwrap().metrics());
            let f1 = f64::from(targets.contains(&true));
            prop_assert_eq!(perfect, vec![f1, f1, 1.0]);
        }
    }
}
