//! How well texts find their counterparts by the similarity of vectors.

use rayon::prelude::*;

use super::{Metrics, Score};

/// For each text, the place of its own counterpart among all, from 1.
#[derive(Clone, Debug)]
pub struct Retrieval {
    places: Vec<usize>,
}

impl Retrieval {
    /// Ranks the counterparts of all texts by dot product for each text; they are in the same order. A counterpart that is as
    /// similar as the own one stands before it, so that a model for which all texts are alike finds nothing.
    ///
    /// # Panics
    /// If there are not as many counterparts as texts.
    pub fn new(texts: &[Vec<f32>], counterparts: &[Vec<f32>]) -> Self {
        assert_eq!(texts.len(), counterparts.len(), "each text has one counterpart");
        let place = |(index, text): (usize, &Vec<f32>)| {
            let similarity = |other: &Vec<f32>| text.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
            let own = similarity(&counterparts[index]);
            counterparts.iter().filter(|other| similarity(other) >= own).count()
        };
        Self { places: texts.par_iter().enumerate().map(place).collect() }
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
        let count = self.places.len();
        let chance = (1..=count).map(|place| 1.0 / place as f64).sum::<f64>() / count as f64;
        let metrics = Metrics::new(Score::highest("mrr", self.reciprocal_rank()).with_baseline(chance));
        [1, 5, 10].into_iter().fold(metrics, |metrics, k| {
            let baseline = (k as f64 / count as f64).min(1.0);
            metrics.with(Score::highest(format!("recall_at_{k}"), self.recall_at(k)).with_baseline(baseline))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_similarities() {
        let texts = [vec![1.0, 0.0], vec![0.0, 1.0], vec![0.8, 0.6]];
        let counterparts = [vec![0.9, 0.1], vec![1.0, 0.0], vec![0.6, 0.8]];
        let retrieval = Retrieval::new(&texts, &counterparts);
        // The first stands behind one, the second behind all, and the third is the first.
        assert_eq!(retrieval.places, [2, 3, 1]);
        assert_eq!((retrieval.recall_at(1), retrieval.recall_at(2)), (1.0 / 3.0, 2.0 / 3.0));
        assert!((retrieval.reciprocal_rank() - (0.5 + 1.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        // All alike: nothing is found.
        assert_eq!(Retrieval::new(&[vec![1.0], vec![1.0]], &[vec![1.0], vec![1.0]]).recall_at(1), 0.0);
    }
}
