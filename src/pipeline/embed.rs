//! One vector for each text, from the encoder's last hidden states.

use std::path::Path;

use burn::{
    Tensor,
    module::Module,
    tensor::{Bool, Device},
};

use super::{
    PipelineOptions,
    runner::{Runner, load_head, rows},
};
use crate::{
    Result,
    checkpoint::LoadReport,
    heads::{Backbone, BackboneConfig, Head},
    model::{attention::PreparedPositions, input::ModelInput, linear::Linear},
    tokenizer::{Text, Truncation},
};

/// How the states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, special tokens included, padding left out.
    #[default]
    Mean,
    /// The first token's (`[CLS]`).
    Cls,
    /// The largest value in each dimension.
    Max,
}

/// How texts are embedded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// From tokens to a text.
    pub pooling: Pooling,
    /// Whether every vector is scaled to length 1, so that the dot product of two is their cosine.
    pub normalize: bool,
}

/// Texts in, vectors out, by the encoder alone; any checkpoint serves.
pub struct Embedder {
    runner: Runner,
    encoder: Box<dyn Head<Output = Tensor<3>>>,
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

impl<B: Backbone> Head for HiddenStates<B> {
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

    /// Embeds texts or pairs of texts, as vectors of the model's hidden size. Texts that are too long are cut at the end.
    ///
    /// # Errors
    /// No text at all, or tokens that the model does not have.
    pub fn embed<'a>(
        &self,
        texts: impl IntoIterator<Item = impl Into<Text<'a>>>,
        options: EmbedOptions,
    ) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<Text<'_>> = texts.into_iter().map(Into::into).collect();
        let encodings = self.runner.encode(&texts, Truncation::LongestFirst, None)?;
        let mut embeddings = self.runner.run(&encodings, |input, _| {
            let mask = input.attention_mask.clone();
            rows(pool(self.encoder.forward(input), mask, options.pooling))
        })?;
        if options.normalize {
            embeddings.iter_mut().for_each(|embedding| normalize(embedding));
        }
        Ok(embeddings)
    }
}

/// # Shapes
/// - states: [batch, length, hidden]
/// - mask: [batch, length], true at real tokens
/// - output: [batch, hidden]
fn pool(states: Tensor<3>, mask: Option<Tensor<2, Bool>>, pooling: Pooling) -> Tensor<2> {
    let padding = mask.map(|mask| mask.bool_not().unsqueeze_dim::<3>(2)); // [batch, length, 1]
    let filled = |states: Tensor<3>, value: f32| match &padding {
        Some(padding) => {
            let shape = states.dims();
            states.mask_fill(padding.clone().expand(shape), value)
        }
        None => states,
    };
    match pooling {
        Pooling::Cls => states.narrow(1, 0, 1).squeeze_dim(1),
        Pooling::Max => filled(states, f32::NEG_INFINITY).max_dim(1).squeeze_dim(1),
        Pooling::Mean => {
            let counts = filled(states.ones_like().narrow(2, 0, 1), 0.0).sum_dim(1); // [batch, 1, 1]
            (filled(states, 0.0).sum_dim(1) / counts).squeeze_dim(1)
        }
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
    fn padding_is_not_pooled() {
        let device = Device::flex();
        let states = || Tensor::<3>::from_data([[[1.0, -2.0], [3.0, -4.0], [90.0, 90.0]]], &device);
        let mask = Tensor::<2, Bool>::from_data([[true, true, false]], &device);
        let pooled = |pooling| rows(pool(states(), Some(mask.clone()), pooling)).unwrap();
        assert_eq!(pooled(Pooling::Mean), [[2.0, -3.0]]);
        assert_eq!(pooled(Pooling::Max), [[3.0, -2.0]]);
        assert_eq!(pooled(Pooling::Cls), [[1.0, -2.0]]);
        assert_eq!(rows(pool(states(), None, Pooling::Max)).unwrap(), [[90.0, 90.0]]);
    }

    #[test]
    fn normalised_vectors_have_length_one() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        normalize(&mut [0.0, 0.0]);
    }
}
