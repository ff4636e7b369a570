//! The enhanced mask decoder (paper section 3.2; `emd_context_layer` in the original's masked_language_model.py).
//!
//! Relative positions alone cannot tell "a new *store* opened beside the new *mall*" apart at the masked words, so absolute
//! positions P join the queries after the attention stack, right before words are predicted. With KV the output of the second
//! last layer, the last layer runs twice with the same weights:
//!
//! ```text
//! q0 = P + KV        q1 = layer(key/value = KV, query = q0)        q2 = layer(key/value = KV, query = q1)
//! ```
//!
//! A query's result depends on no other query, so only those of the words to guess need be made (paper A.7): with 15 % of the
//! tokens masked, the decoder then costs little more than its keys and values.

use burn::{Tensor, module::Module, nn::Embedding};

use crate::{
    kernels::select_rows,
    model::{context::EncoderContext, encoder::Encoder, init::Init, masked_positions::MaskedPositions},
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

    /// The states that tokens are predicted from, at all positions or at the masked ones.
    ///
    /// # Shapes
    /// - states: [batch, length, hidden] as the context's layout has them, output of the second last layer
    /// - output: the same, or [1, masked, hidden]
    ///
    /// # Panics
    /// If the length is above [`max_length`](Self::max_length).
    pub fn forward(
        &self,
        states: Tensor<3>,
        masked: Option<&MaskedPositions>,
        encoder: &Encoder,
        context: &EncoderContext,
    ) -> Tensor<3> {
        let number = encoder.layers().len() - 1;
        let last_layer = &encoder.layers()[number];
        let table = self.position_embeddings.weight.val();
        let key_value = last_layer.key_value(context.stream(states.clone()));
        let first = match masked {
            Some(masked) => {
                let positions = select_rows(table, masked.position_tensor(&states.device()));
                context.layout.select(states, masked) + positions.unsqueeze()
            }
            None => context.layout.absolute_positions(table, &states) + states,
        };
        (0..STEPS).fold(first, |query, _| {
            last_layer.attend(context.stream(query), key_value.clone(), masked, number, context, false).0
        })
    }
}
