//! Rankings by their order: reciprocal rank and discounted gain of the first ten places.

use super::{Metrics, Score};
use crate::{Error, Result};

/// Places that count.
const PLACES: usize = 10;

/// The ranking of one query: for each passage in the order of the scores, the best first, its relevance.
#[derive(Clone, Debug)]
struct Ranked(Vec<f64>);

/// Rankings of queries. Queries without a relevant passage (above 0) do not count, since no order of theirs is better than
/// another. Of passages with the same score the least relevant come first, so that a model for which all passages are alike gains
/// nothing by their order in the data.
#[derive(Clone, Debug)]
pub struct Ranking(Vec<Ranked>);

impl Ranking {
    /// Takes the passages of each query, as pairs of relevance and score.
    ///
    /// # Errors
    /// No query has a relevant passage.
    pub fn new<'a>(queries: impl IntoIterator<Item = &'a [(f32, f32)]>) -> Result<Self> {
        let ranked = |passages: &[(f32, f32)]| {
            let mut passages = passages.to_vec();
            passages.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.total_cmp(&b.0)));
            Ranked(passages.into_iter().map(|(relevance, _)| f64::from(relevance)).collect())
        };
        let relevant = |passages: &&[(f32, f32)]| passages.iter().any(|(relevance, _)| *relevance > 0.0);
        let queries: Vec<_> = queries.into_iter().filter(relevant).map(ranked).collect();
        match queries.is_empty() {
            true => Err(Error::input("rankings", "no query has a relevant passage, expected at least one")),
            false => Ok(Self(queries)),
        }
    }

    /// MRR@10: the mean of one over the place of the first relevant passage, 0 beyond the tenth place.
    pub fn reciprocal_rank(&self) -> f64 {
        self.mean(|Ranked(relevance)| {
            let first = relevance.iter().take(PLACES).position(|relevance| *relevance > 0.0);
            first.map_or(0.0, |place| 1.0 / (place + 1) as f64)
        })
    }

    /// nDCG@10 with the relevance itself as gain (`sklearn.metrics.ndcg_score`): the gain over the binary logarithm of one
    /// plus the place, as a share of that of the best order.
    pub fn discounted_gain(&self) -> f64 {
        self.mean(|Ranked(relevance)| {
            let mut best = relevance.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            gain(relevance) / gain(&best)
        })
    }

    /// All figures; nDCG@10 selects the best model.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(Score::highest("ndcg_at_10", self.discounted_gain()))
            .with(Score::highest("mrr_at_10", self.reciprocal_rank()))
    }

    fn mean(&self, figure: impl Fn(&Ranked) -> f64) -> f64 {
        self.0.iter().map(figure).sum::<f64>() / self.0.len() as f64
    }
}

/// The discounted gain of an order.
fn gain(relevance: &[f64]) -> f64 {
    relevance.iter().take(PLACES).enumerate().map(|(place, relevance)| relevance / (place as f64 + 2.0).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definition() {
        // Graded relevance; the order by score is 1, 0, 3, 0. And a query whose relevant passage is in the eleventh place.
        let graded = [(3.0, 0.2), (0.0, 0.5), (1.0, 0.9), (0.0, 0.1)];
        let late: Vec<_> = (0..11).map(|place| (if place == 10 { 1.0 } else { 0.0 }, -(place as f32))).collect();
        let none = [(0.0, 1.0), (0.0, 2.0)];
        let ranking = Ranking::new([&graded[..], &late, &none]).unwrap();
        assert_eq!(ranking.reciprocal_rank(), 0.5);
        // (1 + 3 / 2) / (3 + 1 / log2(3))
        let expected = 2.5 / (3.0 + 1.0 / 3f64.log2()) / 2.0;
        assert!((ranking.discounted_gain() - expected).abs() < 1e-12);
        assert_eq!(Ranking::new([&graded[..1]]).unwrap().discounted_gain(), 1.0);
        // All alike: the relevant one is the last.
        let alike = [(1.0, 0.5), (0.0, 0.5), (0.0, 0.5)];
        assert_eq!(Ranking::new([&alike[..]]).unwrap().reciprocal_rank(), 1.0 / 3.0);
        assert!(Ranking::new([&none[..]]).unwrap_err().to_string().contains("no query has a relevant passage"));
    }
}
