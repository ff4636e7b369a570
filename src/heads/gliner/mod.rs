//! Entities of any type (Zaratiana et al. 2023, "GLiNER: Generalist Model for Named Entity Recognition using Bidirectional
//! Transformer", arXiv 2311.08526; `UniEncoderSpanModel` and `UniEncoderTokenModel` in the package gliner).
//!
//! ```text
//! encoder -> projection -> states of all tokens
//!     at the labels' markers ----------------> label vectors \
//!     at the words, pooled -> BiLSTM ---------> word vectors  -> scores of spans or of words, for each label
//! ```

mod decode;
mod layout;
mod lstm;
mod spans;
mod tokens;

use burn::{Tensor, module::Module, tensor::Device};

pub use decode::GlinerOptions;
pub(crate) use decode::{Candidate, find, own_logits, scored};
pub(crate) use layout::span_index;
pub use layout::{GlinerLayout, spans};

use self::{lstm::BiLstm, spans::SpanScorer, tokens::TokenScorer};
use super::loss::FocalLoss;
use crate::{
    config::{Configuration, GlinerConfig, SpanMode},
    model::{Backbone, dropout::Dropout, init::Init, input::ModelInput, linear::Linear},
};

/// Scores of spans or words against labels that are part of the input.
#[derive(Module, Debug)]
pub struct Gliner {
    pub(super) backbone: Backbone,
    /// From the encoder's width to that of labels and words, where they differ.
    projection: Option<Linear>,
    rnn: Option<BiLstm>,
    scorer: Scorer,
}

/// What is scored.
#[allow(clippy::large_enum_variant, reason = "there is one in a model")]
#[derive(Module, Debug)]
enum Scorer {
    Spans(SpanScorer),
    Tokens(TokenScorer),
}

/// The vectors of labels and words.
#[derive(Clone, Debug)]
pub struct GlinerVectors {
    /// [batch, labels, hidden]; any numbers where a text has fewer labels.
    pub labels: Tensor<3>,
    /// [batch, words, hidden]; any numbers where a text has fewer words.
    pub words: Tensor<3>,
}

impl Gliner {
    /// A fresh model.
    pub fn new(config: &GlinerConfig, device: &Device) -> Self {
        let (encoder, init) = (&config.encoder_config, init(config, device));
        let size = config.hidden_size;
        let scorer = match config.span_mode {
            SpanMode::TokenLevel => Scorer::Tokens(TokenScorer::new(&init, size, config.dropout)),
            SpanMode::Marker => Scorer::Spans(SpanScorer::linear(&init, size, config.max_width, config.dropout)),
            SpanMode::MarkerV0 => Scorer::Spans(SpanScorer::new(&init, size, config.max_width, config.dropout)),
        };
        Self {
            backbone: Backbone::new(&config.encoder(), device),
            projection: (encoder.hidden_size != size).then(|| fresh(&init, encoder.hidden_size, size)),
            rnn: (config.num_rnn_layers > 0).then(|| BiLstm::new(&init, size, config.num_rnn_layers)),
            scorer,
        }
    }

    /// The same model with as many token embeddings as the configuration says: those beyond them go, and further ones are
    /// drawn anew.
    pub fn with_vocabulary(mut self, config: &GlinerConfig, device: &Device) -> Self {
        let (tokens, init) = (config.encoder_config.vocab_size, init(config, device));
        self.backbone = self.backbone.map_embeddings(|embeddings| embeddings.with_vocabulary(tokens, &init));
        self
    }

    /// The states of all tokens.
    ///
    /// # Shapes
    /// - output: [batch, length, hidden]
    pub fn states(&self, input: ModelInput) -> Tensor<3> {
        let states = self.backbone.forward(input).last_hidden_state;
        match &self.projection {
            Some(projection) => projection.forward(states),
            None => states,
        }
    }

    /// The vectors of labels and words.
    ///
    /// # Shapes
    /// - states: [batch, length, hidden]
    pub fn vectors(&self, states: Tensor<3>, layout: &GlinerLayout) -> GlinerVectors {
        let words = layout.words(states.clone());
        let words = match &self.rnn {
            Some(rnn) => rnn.forward(words, layout),
            None => words,
        };
        GlinerVectors { labels: layout.labels(states), words }
    }

    /// Logits. They are any numbers where a text has fewer words or labels than the batch.
    ///
    /// # Shapes
    /// - output: [batch, spans, labels], in the order of [`spans`], or [batch, words, labels * 3], which are whether the
    ///   word starts, ends, and is inside an entity
    pub fn score(&self, vectors: GlinerVectors) -> Tensor<3> {
        match &self.scorer {
            Scorer::Spans(scorer) => scorer.forward(vectors),
            Scorer::Tokens(scorer) => scorer.forward(vectors),
        }
    }

    /// The sum of the focal losses of all logits of a text, averaged over the texts. (The reference does not average.)
    ///
    /// # Shapes
    /// - logits: as [`score`](Self::score) gives them
    /// - output: \[1\]
    pub fn loss(
        &self,
        logits: Tensor<3>,
        GlinerTargets { targets, mask }: GlinerTargets,
        focal: FocalLoss,
    ) -> Tensor<1> {
        let [texts, _, _] = logits.dims();
        let losses = focal.of(logits, targets);
        let mask = mask.cast(losses.dtype());
        (losses * mask).sum() / texts as f64
    }

    /// All steps: [`states`](Self::states), [`vectors`](Self::vectors), [`score`](Self::score).
    pub fn forward(&self, input: ModelInput, layout: &GlinerLayout) -> Tensor<3> {
        self.score(self.vectors(self.states(input), layout))
    }
}

/// What is asked of a batch.
#[derive(Clone, Debug)]
pub struct GlinerTargets {
    /// 1 where there is an entity, else 0, in the shape of the logits.
    pub targets: Tensor<3>,
    /// 1 for what a text has, 0 for padding, in the shape of the logits.
    pub mask: Tensor<3>,
}

/// Linear -> ReLU -> dropout -> linear.
#[derive(Module, Debug)]
struct Mlp {
    inner: Linear,
    outer: Linear,
    dropout: Dropout,
}

impl Mlp {
    fn new(init: &Init, [input, hidden, output]: [usize; 3], dropout: f64) -> Self {
        let (inner, outer) = (fresh(init, input, hidden), fresh(init, hidden, output));
        Self { inner, outer, dropout: Dropout::new(dropout) }
    }

    /// # Shapes
    /// - x: [.., input]
    /// - output: [.., output]
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.outer.forward(self.hidden(self.inner.forward(x)))
    }

    /// The hidden units from their inputs.
    fn hidden<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.dropout.forward(burn::tensor::activation::relu(x))
    }
}

/// The maker of the encoder's layers.
fn init<'a>(config: &GlinerConfig, device: &'a Device) -> Init<'a> {
    let encoder = &config.encoder_config;
    Init { device, std: encoder.initializer_range, epsilon: encoder.layer_norm_eps }
}

/// A fresh linear map over the encoder, as the reference draws it.
fn fresh(init: &Init, input: usize, output: usize) -> Linear {
    init.uniform_linear(input, output, input)
}

/// The weights of some inputs of a linear map, as a map without a bias.
///
/// # Shapes
/// - output: [count, outputs]
fn part(linear: &Linear, part: usize, count: usize) -> Tensor<2> {
    linear.weight.val().narrow(0, part * count, count)
}
