//! One vector for each text, from the encoder's last hidden states.

use std::path::Path;

use burn::{Tensor, module::Module, tensor::Device};

use super::{
    PipelineOptions, Pooling,
    pooling::SentenceModules,
    runner::{Runner, load_head},
};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    heads::{Backbone, BackboneConfig, InferenceModel},
    model::{attention::PreparedPositions, input::ModelInput, linear::Linear},
    scores::rows,
    tokenizer::{Text, Truncation},
};

/// How texts are embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedOptions {
    /// From tokens to a text; the vectors of several poolings are put one behind the other.
    pub pooling: Vec<Pooling>,
    /// Whether every vector is scaled to length 1, so that the dot product of two is their cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    /// The mean, as it is.
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

/// Texts in, vectors out, by the encoder alone; any checkpoint serves.
pub struct Embedder {
    runner: Runner,
    encoder: Box<dyn InferenceModel<Output = Tensor<3>>>,
}

/// The backbone as a head of its own, so that it reads the file of any head.
#[derive(Module, Debug)]
struct HiddenStates<B: Backbone> {
    backbone: B,
}

impl<B: Backbone> HiddenStates<B> {
    fn new(config: &B::Config, device: &Device) -> Self {
        Self { backbone: config.backbone(device) }
    }
}

impl<B: Backbone> InferenceModel for HiddenStates<B> {
    type Output = Tensor<3>;

    fn forward(&self, input: ModelInput) -> Tensor<3> {
        self.backbone.forward(input).last_hidden_state
    }

    fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.backbone.prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.backbone.linears()
    }
}

impl Embedder {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, or options that do not fit the model.
    pub fn open(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let mut runner = Runner::open(folder.as_ref(), options)?;
        let encoder = load_head!(runner, HiddenStates);
        Ok(Self { runner, encoder })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        &self.runner.report
    }

    /// Embeds texts or pairs of texts, as vectors of the model's hidden size for each pooling. Texts that are too long are cut
    /// at the end.
    ///
    /// # Errors
    /// No text or no pooling at all, tokens that the model does not have, or vectors that are not finite.
    pub fn embed<'a>(
        &self,
        texts: impl IntoIterator<Item = impl Into<Text<'a>>>,
        options: &EmbedOptions,
    ) -> Result<Vec<Vec<f32>>> {
        if options.pooling.is_empty() {
            return Err(Error::input("embed options", "no pooling is named, expected at least one"));
        }
        let texts: Vec<Text<'_>> = texts.into_iter().map(Into::into).collect();
        let encodings = self.runner.encode(&texts, Truncation::LongestFirst, None)?;
        let forward = |input: ModelInput, _: &[&Encoding]| {
            let mask = input.attention_mask.clone();
            let states = self.encoder.forward(input);
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

/// Scales to length 1; the zero vector stays.
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
