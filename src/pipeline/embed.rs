//! One vector for each text, from the encoder's last hidden states.

use std::path::Path;

use burn::Tensor;

use super::{PipelineOptions, Pooling, pooling::SentenceModules, runner::Runner};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    model::{Backbone, inference::Prepared, input::ModelInput},
    scores::rows,
    tokenizer::{Text, Truncation},
};

/// How texts are embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedOptions {
    /// How the vectors of tokens become one for the text. With several poolings, their vectors are concatenated.
    pub pooling: Vec<Pooling>,
    /// Whether every vector is scaled to length 1. Then the dot product of two vectors is their cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    /// The mean, not scaled.
    fn default() -> Self {
        Self { pooling: vec![Pooling::Mean], normalize: false }
    }
}

impl EmbedOptions {
    /// What a folder of sentence-transformers says in `1_Pooling/config.json` and `modules.json`; none if it is no such folder.
    ///
    /// # Errors
    /// A file that is not JSON, a pooling that is not known or none at all, or a module that is not supported.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let modules = SentenceModules::read(folder.as_ref())?;
        Ok(modules.map(|SentenceModules { pooling, normalize }| Self { pooling, normalize }))
    }
}

/// Texts in, vectors out, by the encoder alone. Any checkpoint will do.
pub struct Embedder {
    runner: Runner,
    model: Prepared<Backbone>,
}

impl Embedder {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, or options that do not fit the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let (runner, model) = Runner::open(folder.as_ref(), options)?;
        Ok(Self { runner, model })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        &self.runner.report
    }

    /// Embeds texts or pairs of texts. A vector has the model's hidden size, times the number of poolings. Texts that
    /// are too long are cut at the end.
    ///
    /// # Errors
    /// No text or no pooling at all, tokens that the model does not have, or vectors that are not finite.
    pub fn embed<'a>(
        &self,
        texts: impl IntoIterator<Item = impl Into<Text<'a>>>,
        options: &EmbedOptions,
    ) -> Result<Vec<Vec<f32>>> {
        if options.pooling.is_empty() {
            return Err(Error::setting("embed options", "no pooling is named, expected at least one"));
        }
        let texts: Vec<Text<'_>> = texts.into_iter().map(Into::into).collect();
        let encodings = self.runner.encode(&texts, Truncation::LongestFirst, None)?;
        let forward = |input: ModelInput, _: &[&Encoding]| {
            let mask = input.attention_mask.clone();
            let states = self.model.forward(input).last_hidden_state;
            let pooled = options.pooling.iter().map(|pooling| pooling.pool(states.clone(), mask.as_ref()));
            rows(Tensor::cat(pooled.collect(), 1))
        };
        self.runner.run(&encodings, forward, |_, mut embedding| {
            if options.normalize {
                normalize(&mut embedding);
            }
            embedding
        })
    }
}

/// Scales to length 1; the zero vector stays as it is.
fn normalize(embedding: &mut [f32]) {
    let norm = embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_vectors_have_length_one() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        normalize(&mut [0.0, 0.0]);
    }
}
