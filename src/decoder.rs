//! The enhanced mask decoder (paper section 3.2; `emd_context_layer` in the original's masked_language_model.py).
//!
//! Relative positions alone cannot tell "a new *store* opened beside the new *mall*" apart at the masked words, so absolute
//! positions P join the queries after the attention stack, right before words are predicted. With KV the output of the second
//! last layer, the last layer runs twice with the same weights:
//!
//! ```text
//! q0 = P + KV        q1 = layer(key/value = KV, query = q0)        q2 = layer(key/value = KV, query = q1)
//! ```

use burn::{Tensor, module::Module, nn::Embedding};

use crate::{
    encoder::{DebertaEncoder, EncoderContext},
    init::Init,
};

/// How often the last layer runs (the original's `n_layers` of 2 for released models).
const STEPS: usize = 2;

/// The absolute position table; the layer belongs to the encoder and is used again.
#[derive(Module, Debug)]
pub struct EnhancedMaskDecoder {
    position_embeddings: Embedding,
}

impl EnhancedMaskDecoder {
    pub(crate) fn new(init: &Init<'_>, positions: usize, width: usize) -> Self {
        Self { position_embeddings: init.embedding(positions, width) }
    }

    /// The longest input, in tokens.
    pub fn max_length(&self) -> usize {
        self.position_embeddings.weight.dims()[0]
    }

    /// # Shapes
    /// - states: [batch, length, hidden] as the context's layout has them, output of the second last layer
    /// - output: the same
    ///
    /// # Panics
    /// If the length is above [`max_length`](Self::max_length).
    pub fn forward(&self, states: Tensor<3>, encoder: &DebertaEncoder, context: &EncoderContext) -> Tensor<3> {
        let number = encoder.layers().len() - 1;
        let last_layer = &encoder.layers()[number];
        let positions = context.layout.absolute_positions(self.position_embeddings.weight.val(), &states);
        (0..STEPS).fold(positions + states.clone(), |query, _| {
            last_layer.forward(states.clone(), Some(query), number, context, false).0
        })
    }
}
