//! Two encoders, of texts and of what belongs to them, which are trained together.

use burn::{Tensor, module::Module};

use super::TextEncoder;
use crate::{
    Error, ModelConfig, Result,
    model::{Backbone, InferenceModel, input::ModelInput},
    tokenizer::Tokenizer,
};

/// An encoder of texts, such as questions, and another one of their counterparts, such as answers, whose vectors have the same
/// size (Karpukhin and others, "Dense Passage Retrieval for Open-Domain Question Answering", EMNLP 2020; the two towers of CLIP).
/// The temperature of their loss is the first one's.
#[derive(Module, Debug)]
pub struct DualEncoder {
    pub(crate) texts: TextEncoder,
    pub(crate) counterparts: TextEncoder,
    /// That of the counterparts' encoder.
    #[module(skip)]
    pub(crate) config: ModelConfig,
    /// And its tokenizer, to be written beside it.
    #[module(skip)]
    pub(crate) tokenizer: Option<Tokenizer>,
}

impl DualEncoder {
    /// Puts two encoders together; `config` is that of the second.
    ///
    /// # Errors
    /// A second encoder with Switch layers, whose balance no loss would keep.
    pub fn new(texts: TextEncoder, counterparts: TextEncoder, config: ModelConfig) -> Result<Self> {
        match config.switch() {
            None => Ok(Self { texts, counterparts, config, tokenizer: None }),
            Some(_) => Err(Error::unsupported("configuration", "an encoder of counterparts with Switch layers")),
        }
    }

    /// With the tokenizer of the counterparts' encoder, which is written beside it.
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Self {
        Self { tokenizer: Some(tokenizer), ..self }
    }

    /// The encoders of texts and of counterparts.
    pub fn sides(&self) -> [&TextEncoder; 2] {
        [&self.texts, &self.counterparts]
    }

    /// The models below both.
    pub(crate) fn backbones_mut(&mut self) -> [&mut Backbone; 2] {
        [self.texts.backbone_mut(), self.counterparts.backbone_mut()]
    }

    /// The vectors of texts, and those of their counterparts behind them, as [`TextEncoder::pair_loss`] takes them.
    ///
    /// # Shapes
    /// - output: [texts + counterparts, width]
    pub fn forward(&self, texts: ModelInput, counterparts: ModelInput) -> Tensor<2> {
        Tensor::cat(vec![self.texts.forward(texts), self.counterparts.forward(counterparts)], 0)
    }
}
