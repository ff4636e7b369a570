//! How well texts find their counterparts by the similarity of vectors.

use rayon::prelude::*;

use super::{Metrics, Score};

/// For each text, the place of its own counterpart among all, from 1.
#[derive(Clone, Debug)]
pub struct Retrieval {
    places: Vec<usize>,
    candidates: usize,
}

impl Retrieval {
    /// Ranks the counterparts of all texts by cosine for each text, whose own counterpart is at the index in `own`. A
    /// counterpart that is as similar as the own one stands before it, so that a model for which all texts are alike finds
    /// nothing.
    ///
    /// # Panics
    /// If there is not an index for each text, or no such counterpart.
    pub fn new(texts: &[Vec<f32>], counterparts: &[Vec<f32>], own: &[usize]) -> Self {
        assert_eq!(texts.len(), own.len(), "each text has one counterpart");
        let counterparts: Vec<Vec<f32>> = counterparts.par_iter().map(|vector| of_length_one(vector)).collect();
        let place = |(text, own): (&Vec<f32>, &usize)| {
            let similarity = |other: &Vec<f32>| text.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
            let own = similarity(&counterparts[*own]);
            counterparts.iter().filter(|other| similarity(other) >= own).count()
        };
        // The length of the text's own vector does not change the order.
        Self { places: texts.par_iter().zip(own).map(place).collect(), candidates: counterparts.len() }
    }

    /// recall@k: the share of the texts whose counterpart is among the first `k`.
    pub fn recall_at(&self, k: usize) -> f64 {
        self.places.iter().filter(|place| **place <= k).count() as f64 / self.places.len() as f64
    }

    /// MRR: the mean of one over the place.
    pub fn reciprocal_rank(&self) -> f64 {
        self.places.iter().map(|place| 1.0 / *place as f64).sum::<f64>() / self.places.len() as f64
    }

    /// All figures, with those of a random order as baselines; MRR selects the best model.
    pub fn metrics(&self) -> Metrics {
        let count = self.candidates;
        let chance = (1..=count).map(|place| 1.0 / place as f64).sum::<f64>() / count as f64;
        let metrics = Metrics::new(Score::highest("mrr", self.reciprocal_rank()).with_baseline(chance));
        [1, 5, 10].into_iter().fold(metrics, |metrics, k| {
            let baseline = (k as f64 / count as f64).min(1.0);
            metrics.with(Score::highest(format!("recall_at_{k}"), self.recall_at(k)).with_baseline(baseline))
        })
    }
}

/// Scales to length 1; the zero vector stays as it is.
fn of_length_one(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|value| value / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_similarities() {
        let texts = [vec![1.0, 0.0], vec![0.0, 1.0], vec![0.8, 0.6]];
        // Cosines: 0.99, 1 and 0.6 with the first.
        let counterparts = [vec![9.0, 1.0], vec![1.0, 0.0], vec![0.6, 0.8]];
        let retrieval = Retrieval::new(&texts, &counterparts, &[0, 1, 2]);
        // The first stands behind one, the second behind all, and the third is the first.
        assert_eq!(retrieval.places, [2, 3, 1]);
        assert_eq!((retrieval.recall_at(1), retrieval.recall_at(2)), (1.0 / 3.0, 2.0 / 3.0));
        assert!((retrieval.reciprocal_rank() - (0.5 + 1.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        // All alike: nothing is found.
        assert_eq!(Retrieval::new(&[vec![1.0], vec![1.0]], &[vec![1.0], vec![1.0]], &[0, 1]).recall_at(1), 0.0);
        // Two texts with one counterpart.
        let shared = Retrieval::new(&texts[..2], &counterparts[..1], &[0, 0]);
        assert_eq!((shared.recall_at(1), shared.metrics().selected().baseline), (1.0, Some(1.0)));
    }
}
