//! One layer of an encoder: attention and feed-forward, each with its residual.

use burn::{Tensor, module::Module, tensor::DType};

use super::{
    attention::{AttentionConfig, AttentionInput, DisentangledAttention, KeyValue},
    context::EncoderContext,
    feed_forward::{FeedForward, ResidualOutput},
    init::Init,
    linear::{Linear, LinearRole},
    masked_positions::MaskedPositions,
};
use crate::config::Activation;

/// One layer: attention, then feed-forward, each with its residual.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    attention: DisentangledAttention,
    attention_output: ResidualOutput,
    feed_forward: FeedForward,
}

/// What one layer is made of, whichever family it belongs to.
#[derive(Clone, Debug)]
pub struct EncoderLayerConfig {
    /// The attention.
    pub attention: AttentionConfig,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Its activation.
    pub activation: Activation,
    /// Dropout in front of both residuals.
    pub dropout: f64,
}

impl EncoderLayerConfig {
    /// A fresh layer.
    pub(super) fn init(&self, init: &Init<'_>) -> EncoderLayer {
        let hidden = self.attention.hidden_size;
        EncoderLayer {
            attention: self.attention.init(init),
            attention_output: ResidualOutput::new(init, hidden, hidden, self.dropout),
            feed_forward: FeedForward::new(init, hidden, self.intermediate_size, self.activation, self.dropout),
        }
    }
}

impl EncoderLayer {
    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = (LinearRole, &mut Linear)> {
        let attention = self.attention.linears().into_iter().chain([self.attention_output.linear()]);
        LinearRole::ALL.into_iter().zip(attention.chain(self.feed_forward.linears()))
    }

    /// The attention.
    pub(super) fn attention(&self) -> &DisentangledAttention {
        &self.attention
    }

    /// The element type of its parameters.
    pub(super) fn dtype(&self) -> DType {
        self.feed_forward.dtype()
    }

    /// Kc and Vc of some states, [batch, length, hidden].
    pub fn key_value(&self, hidden_states: Tensor<3>) -> KeyValue {
        self.attention.key_value(hidden_states)
    }

    /// Runs the layer, `number` of its stack: every token attends to all.
    ///
    /// # Shapes
    /// - states, output: [batch, length, hidden]
    /// - attention weights, if asked for: [batch, heads, query, key]
    pub fn forward(
        &self,
        states: Tensor<3>,
        number: usize,
        context: &EncoderContext,
        with_weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let key_value = self.key_value(states.clone());
        self.attend(states, key_value, None, number, context, with_weights)
    }

    /// Runs the layer on queries of their own: `query_states` attend to keys and values, and are the residual. They are the
    /// states of all tokens, or of those at `query_positions`.
    ///
    /// # Shapes
    /// - query_states, output: [batch, length, hidden], or [1, queries, hidden]
    /// - attention weights, if asked for: [batch, heads, query, key]
    pub fn attend(
        &self,
        query_states: Tensor<3>,
        key_value: KeyValue,
        query_positions: Option<&MaskedPositions>,
        number: usize,
        context: &EncoderContext,
        with_weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let relative =
            context.relative.as_ref().map(|table| (table.project(number, &self.attention), table.index.clone()));
        let residual = query_states.clone();
        let input = AttentionInput {
            query_states,
            key_value,
            layout: &context.layout,
            query_positions,
            relative,
            with_weights,
        };
        let (attended, weights) = self.attention.forward(input);
        (self.feed_forward.forward(self.attention_output.forward(attended, residual)), weights)
    }
}
