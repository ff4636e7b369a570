//! Entities of any type (Zaratiana et al. 2023, "GLiNER: Generalist Model for Named Entity Recognition using Bidirectional
//! Transformer", arXiv 2311.08526; `UniEncoderSpanModel` and `UniEncoderTokenModel` in the package gliner).
//!
//! ```text
//! encoder -> projection -> states of all tokens
//!     at the labels' markers ----------------> label vectors \
//!     at the words, pooled -> BiLSTM ---------> word vectors  -> scores of spans or of words, for each label
//! ```

mod layout;
mod lstm;
mod spans;
mod tokens;

use burn::{Tensor, module::Module, tensor::Device};

pub use layout::{GlinerLayout, spans};

use self::{lstm::BiLstm, spans::SpanScorer, tokens::TokenScorer};
use crate::{
    config::{GlinerConfig, SpanMode},
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
        let encoder = &config.encoder_config;
        let init = Init { device, std: encoder.initializer_range, epsilon: encoder.layer_norm_eps };
        let size = config.hidden_size;
        let scorer = match config.span_mode {
            SpanMode::TokenLevel => Scorer::Tokens(TokenScorer::new(&init, size, config.dropout)),
            SpanMode::Marker => Scorer::Spans(SpanScorer::linear(&init, size, config.max_width, config.dropout)),
            SpanMode::MarkerV0 => Scorer::Spans(SpanScorer::new(&init, size, config.max_width, config.dropout)),
        };
        Self {
            backbone: Backbone::new(&encoder.clone().into(), device),
            projection: (encoder.hidden_size != size).then(|| init.linear(encoder.hidden_size, size)),
            rnn: (config.num_rnn_layers > 0).then(|| BiLstm::new(&init, size, config.num_rnn_layers)),
            scorer,
        }
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

    /// All steps: [`states`](Self::states), [`vectors`](Self::vectors), [`score`](Self::score).
    pub fn forward(&self, input: ModelInput, layout: &GlinerLayout) -> Tensor<3> {
        self.score(self.vectors(self.states(input), layout))
    }
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
        let (inner, outer) = (init.linear(input, hidden), init.linear(hidden, output));
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

/// The weights of some inputs of a linear map, as a map without a bias.
///
/// # Shapes
/// - output: [count, outputs]
fn part(linear: &Linear, part: usize, count: usize) -> Tensor<2> {
    linear.weight.val().narrow(0, part * count, count)
}
