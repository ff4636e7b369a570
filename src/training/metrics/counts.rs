//! Counts for precision and recall: occurrences in the targets, in the predictions, and in both.

use std::iter::Sum;

/// The counts of one class, or of several together; precision, recall and F1 follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Occurrences in the targets.
    pub targets: usize,
    /// Occurrences in the predictions.
    pub predictions: usize,
    /// Occurrences in both.
    pub correct: usize,
}

impl Counts {
    /// The share of the predictions that are right; 0 if there are none, as scikit-learn and conlleval have it.
    pub fn precision(&self) -> f64 {
        ratio(self.correct, self.predictions)
    }

    /// The share of the targets that were found; 0 if there are none.
    pub fn recall(&self) -> f64 {
        ratio(self.correct, self.targets)
    }

    /// The harmonic mean of precision and recall; 0 if nothing is right.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.correct, self.targets + self.predictions)
    }

    /// Counts one place where the class is in the targets, in the predictions, or in both.
    pub(super) fn add(&mut self, target: bool, prediction: bool) {
        self.targets += usize::from(target);
        self.predictions += usize::from(prediction);
        self.correct += usize::from(target && prediction);
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, counts| Self {
            targets: sum.targets + counts.targets,
            predictions: sum.predictions + counts.predictions,
            correct: sum.correct + counts.correct,
        })
    }
}

/// The unweighted mean F1 over the classes that occur in the targets or in the predictions; 0 if there are none.
pub(super) fn macro_f1<'a>(classes: impl IntoIterator<Item = &'a Counts>) -> f64 {
    let occurring = classes.into_iter().filter(|counts| counts.targets + counts.predictions > 0);
    let (sum, classes) = occurring.fold((0.0, 0), |(sum, classes), counts| (sum + counts.f1(), classes + 1));
    if classes == 0 { 0.0 } else { sum / f64::from(classes) }
}

/// `part / whole`; 0 if the whole is 0.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_counts_as_zero() {
        let nothing = Counts::default();
        assert_eq!((nothing.precision(), nothing.recall(), nothing.f1(), macro_f1([&nothing])), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn f1_is_the_harmonic_mean() {
        let counts = Counts { targets: 4, predictions: 5, correct: 3 };
        let (precision, recall) = (counts.precision(), counts.recall());
        assert_eq!((precision, recall), (0.6, 0.75));
        assert!((counts.f1() - 2.0 * precision * recall / (precision + recall)).abs() < 1e-15);
    }
}
