//! The published hyperparameters of fine-tuning (`experiments/glue/*.sh` and `experiments/ner` in the reference).

use super::optimizer::Warmup;
use crate::{Error, Result};

/// The hyperparameters of one task for one size of model. All recipes have a weight decay of 0.01, a largest gradient norm of
/// 1, and a learning rate that falls linearly: the defaults of [`TrainingSettings`](super::TrainingSettings).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Passes through the data.
    pub epochs: f64,
    /// Warmup: how long the learning rate rises.
    pub warmup: Warmup,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Examples in a batch.
    pub batch_size: usize,
    /// Dropout in front of the classifier.
    pub task_dropout: f64,
    /// Tokens of an input.
    pub max_length: usize,
    /// Weight of the adversarial term, if SiFT is used.
    pub sift_lambda: f64,
}

/// Name, epochs, steps of warmup, learning rate, batch size, task dropout, length.
type Row = (&'static str, f64, usize, f64, usize, f64, usize);

const ROWS: [Row; 30] = [
    ("mnli-base", 3.0, 1000, 3e-5, 64, 0.1, 256),
    ("mnli-large", 3.0, 1000, 1e-5, 64, 0.2, 256),
    ("mnli-v3-xsmall", 3.0, 1000, 4.5e-5, 64, 0.1, 256),
    ("mnli-v3-small", 3.0, 1500, 4.5e-5, 64, 0.2, 256),
    ("mnli-v3-base", 3.0, 1000, 1.5e-5, 64, 0.1, 256),
    ("mnli-v3-large", 2.0, 500, 7e-6, 64, 0.3, 256),
    ("qqp-base", 8.0, 500, 2e-5, 64, 0.15, 320),
    ("qqp-large", 8.0, 500, 1e-5, 64, 0.15, 320),
    ("qqp-v3-large", 6.0, 1000, 1e-5, 64, 0.2, 320),
    ("qnli-base", 4.0, 500, 2e-5, 32, 0.15, 512),
    ("qnli-large", 4.0, 500, 1e-5, 32, 0.15, 512),
    ("qnli-v3-large", 6.0, 200, 7e-6, 64, 0.2, 512),
    ("sst2-base", 6.0, 500, 2e-5, 32, 0.15, 128),
    ("sst2-large", 6.0, 500, 1e-5, 32, 0.15, 128),
    ("sst2-v3-large", 8.0, 500, 6e-6, 32, 0.1, 128),
    ("cola-base", 6.0, 100, 2e-5, 32, 0.15, 64),
    ("cola-large", 6.0, 100, 7e-6, 32, 0.15, 64),
    ("cola-v3-large", 10.0, 50, 5.5e-6, 32, 0.1, 64),
    ("stsb-base", 6.0, 100, 2e-5, 32, 0.15, 128),
    ("stsb-large", 4.0, 100, 7e-6, 32, 0.15, 128),
    ("stsb-v3-large", 4.0, 50, 7e-6, 32, 0.1, 128),
    ("mrpc-base", 6.0, 50, 2e-5, 32, 0.15, 128),
    ("mrpc-large", 6.0, 50, 1e-5, 32, 0.15, 128),
    ("mrpc-v3-large", 6.0, 50, 6e-6, 32, 0.2, 128),
    ("rte-base", 6.0, 100, 2e-5, 32, 0.2, 320),
    ("rte-large", 6.0, 50, 1e-5, 32, 0.2, 320),
    ("rte-v3-large", 6.0, 50, 1e-5, 32, 0.3, 320),
    // 0 stands for a tenth of all steps.
    ("ner-base", 15.0, 0, 2e-5, 16, 0.0, 512),
    ("ner-large", 15.0, 0, 1e-5, 16, 0.0, 512),
    ("ner-v3-large", 10.0, 10, 9e-6, 16, 0.0, 512),
];

impl Recipe {
    /// The recipe of this name.
    ///
    /// # Errors
    /// There is none of this name; the message lists the known ones.
    pub fn find(name: &str) -> Result<Self> {
        let row = ROWS.iter().find(|row| row.0 == name).ok_or_else(|| {
            let names: Vec<_> = ROWS.iter().map(|row| row.0).collect();
            Error::setting(format!("recipe `{name}`"), format!("there is none, expected one of {}", names.join(", ")))
        })?;
        let (name, epochs, warmup, learning_rate, batch_size, task_dropout, max_length) = *row;
        Ok(Self {
            epochs,
            warmup: if warmup == 0 { Warmup::Ratio(0.1) } else { Warmup::Steps(warmup) },
            learning_rate,
            batch_size,
            task_dropout,
            max_length,
            sift_lambda: if name == "mnli-v3-xsmall" { 3.0 } else { 5.0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_are_found_by_name() {
        let recipe = Recipe::find("mnli-v3-xsmall").unwrap();
        assert_eq!((recipe.learning_rate, recipe.warmup), (4.5e-5, Warmup::Steps(1000)));
        assert_eq!(Recipe::find("ner-base").unwrap().warmup, Warmup::Ratio(0.1));
        let error = Recipe::find("mnli").unwrap_err().to_string();
        assert!(error.contains("recipe `mnli`") && error.contains("mnli-base"), "{error}");
    }
}
