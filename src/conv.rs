//! The n-gram induced encoding of DeBERTa v2 (`ConvLayer` in the reference; DeBERTa v2's nGiE).

use burn::{
    Tensor,
    module::Module,
    nn::{
        Dropout, DropoutConfig, Initializer, LayerNorm, PaddingConfig1d,
        conv::{Conv1d, Conv1dConfig},
    },
    tensor::Bool,
};

use crate::{activation::Activation, config::DebertaConfig, embeddings::zero_padding, init::Init};

/// A convolution over the embeddings that joins the first layer's output.
#[derive(Module, Debug)]
pub struct ConvLayer {
    conv: Conv1d,
    layer_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl ConvLayer {
    /// A convolution of `kernel_size`, an odd number.
    pub(crate) fn new(config: &DebertaConfig, kernel_size: usize, init: &Init<'_>) -> Self {
        let (width, side) = (config.hidden_size, (kernel_size - 1) / 2);
        let conv = Conv1dConfig::new(width, width, kernel_size)
            .with_padding(PaddingConfig1d::Explicit(side, side))
            .with_groups(config.conv_groups)
            .with_bias(false)
            .with_initializer(Initializer::Normal { mean: 0.0, std: init.std })
            .init(init.device);
        Self {
            conv: Conv1d { bias: Some(init.zeros(width)), ..conv },
            layer_norm: init.layer_norm(width),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            activation: config.conv_act,
        }
    }

    /// LayerNorm( layer_output + act(dropout(conv(embeddings) at tokens)) ), zero at padding.
    ///
    /// # Shapes
    /// - embeddings, layer_output, output: [batch, length, hidden]
    /// - mask: [batch, length], true at tokens
    pub fn forward(&self, embeddings: Tensor<3>, layer_output: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        let ngrams = self.conv.forward(embeddings.swap_dims(1, 2)).swap_dims(1, 2);
        let ngrams = self.activation.forward(self.dropout.forward(zero_padding(ngrams, mask.clone())));
        zero_padding(self.layer_norm.forward(layer_output + ngrams), mask)
    }
}
