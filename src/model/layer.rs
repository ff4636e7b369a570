//! One layer of an encoder: attention and feed-forward, each with its residual.

use burn::{Tensor, module::Module, tensor::DType};

use super::{
    attention::{AttentionConfig, AttentionInput, DisentangledAttention, KeyValue},
    context::{EncoderContext, Stream},
    feed_forward::{FeedForward, ResidualOutput},
    init::Init,
    linear::{Linear, LinearRole},
    masked_positions::MaskedPositions,
    switch::RoutedTokens,
};
use crate::config::{Activation, SwitchConfig};

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
    /// Which layers choose among several feed-forward networks, and how.
    pub switch: Option<SwitchConfig>,
}

impl EncoderLayerConfig {
    /// A fresh layer, `number` of its stack.
    pub(super) fn init(&self, number: usize, init: &Init<'_>) -> EncoderLayer {
        let (hidden, inner) = (self.attention.hidden_size, self.intermediate_size);
        let switch = self.switch.as_ref().filter(|switch| switch.is_switch(number));
        EncoderLayer {
            attention: self.attention.init(init),
            attention_output: ResidualOutput::new(init, hidden, hidden, self.dropout),
            feed_forward: FeedForward::new(init, [hidden, inner], self.activation, self.dropout, switch),
        }
    }
}

impl EncoderLayer {
    /// The linear maps that every token passes.
    pub(crate) fn linears(&mut self) -> impl Iterator<Item = (LinearRole, &mut Linear)> {
        let attention = self.attention.linears().into_iter().chain([self.attention_output.linear()]);
        LinearRole::ALL.into_iter().zip(attention).chain(self.feed_forward.linears())
    }

    /// The attention.
    pub(super) fn attention(&self) -> &DisentangledAttention {
        &self.attention
    }

    /// The element type of its parameters.
    pub(super) fn dtype(&self) -> DType {
        self.feed_forward.dtype()
    }

    /// Kc and Vc of some states.
    pub fn key_value(&self, states: Stream) -> KeyValue {
        self.attention.key_value(states.input)
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
        let states = context.stream(states);
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
        query_states: Stream,
        key_value: KeyValue,
        query_positions: Option<&MaskedPositions>,
        number: usize,
        context: &EncoderContext,
        with_weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let relative =
            context.relative.as_ref().map(|table| (table.project(number, &self.attention), table.index.clone()));
        let input = AttentionInput {
            query_states: query_states.input,
            key_value,
            layout: &context.layout,
            query_positions,
            relative,
            with_weights,
        };
        let (attended, weights) = self.attention.forward(input);
        let tokens =
            RoutedTokens { layout: &context.layout, positions: query_positions, record: context.routing.as_ref() };
        let states = context.stream(self.attention_output.forward(attended, query_states.residual));
        (self.feed_forward.forward(states, tokens), weights)
    }
}
