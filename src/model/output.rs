//! What a model without a head returns.

use burn::Tensor;

use super::token_layout::TokenLayout;

/// What a backbone returns.
#[derive(Clone, Debug)]
pub struct ModelOutput {
    /// The last layer's states, [batch, length, hidden].
    pub last_hidden_state: Tensor<3>,
    /// The embeddings' output and each layer's, if asked for.
    pub hidden_states: Option<Vec<Tensor<3>>>,
    /// Each layer's attention weights, [batch, heads, query, key], if asked for.
    pub attentions: Option<Vec<Tensor<4>>>,
}

impl ModelOutput {
    pub(crate) fn new(last_hidden_state: Tensor<3>, record: LayerRecord) -> Self {
        Self { last_hidden_state, hidden_states: record.hidden_states, attentions: record.attentions }
    }
}

/// States and attention weights of every layer, kept where the input asks for them.
#[derive(Clone, Debug, Default)]
pub struct LayerRecord {
    /// The embeddings' output, then each layer's, [batch, length, hidden].
    pub hidden_states: Option<Vec<Tensor<3>>>,
    /// Each layer's attention weights, [batch, heads, query, key].
    pub attentions: Option<Vec<Tensor<4>>>,
}

impl LayerRecord {
    /// An empty record that keeps what is asked for.
    pub fn new(hidden_states: bool, attentions: bool) -> Self {
        Self { hidden_states: hidden_states.then(Vec::new), attentions: attentions.then(Vec::new) }
    }

    pub(crate) fn keep_states(&mut self, states: &Tensor<3>, layout: &TokenLayout) {
        if let Some(kept) = &mut self.hidden_states {
            kept.push(layout.restore(states.clone()));
        }
    }

    pub(crate) fn keep_weights(&mut self, weights: Option<Tensor<4>>) {
        if let Some(kept) = &mut self.attentions {
            kept.extend(weights);
        }
    }

    /// Whether attention weights are to be kept.
    pub(crate) fn wants_weights(&self) -> bool {
        self.attentions.is_some()
    }
}
