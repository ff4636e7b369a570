//! The n-gram induced encoding of DeBERTa v2 (`ConvLayer` in the reference; DeBERTa v2's nGiE).

use burn::{
    Tensor,
    module::Module,
    nn::{
        Initializer, LayerNorm, PaddingConfig1d,
        conv::{Conv1d, Conv1dConfig},
    },
};

use crate::{
    config::Activation,
    model::{dropout::Dropout, init::Init, token_layout::TokenLayout},
};

/// A convolution over the embeddings that joins the first layer's output.
#[derive(Module, Debug)]
pub struct ConvLayer {
    conv: Conv1d,
    layer_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

/// What the convolution is made of.
#[derive(Clone, Debug)]
pub(crate) struct ConvConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Tokens that the kernel covers, an odd number.
    pub kernel_size: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Activation after the convolution.
    pub activation: Activation,
    /// Dropout in front of the activation.
    pub dropout: f64,
}

impl ConvConfig {
    /// A fresh convolution.
    pub fn init(&self, init: &Init<'_>) -> ConvLayer {
        let (width, side) = (self.hidden_size, (self.kernel_size - 1) / 2);
        let conv = Conv1dConfig::new(width, width, self.kernel_size)
            .with_padding(PaddingConfig1d::Explicit(side, side))
            .with_groups(self.groups)
            .with_bias(false)
            .with_initializer(Initializer::Normal { mean: 0.0, std: init.std })
            .init(init.device);
        ConvLayer {
            conv: Conv1d { bias: Some(init.zeros(width)), ..conv },
            layer_norm: init.layer_norm(width),
            dropout: Dropout::new(self.dropout),
            activation: self.activation,
        }
    }
}

impl ConvLayer {
    /// LayerNorm( layer_output + act(dropout(conv(embeddings) at tokens)) ), zero at padding.
    ///
    /// # Shapes
    /// - embeddings, layer_output, output: [batch, length, hidden] as the layout has them
    pub fn forward(&self, embeddings: Tensor<3>, layer_output: Tensor<3>, layout: &TokenLayout) -> Tensor<3> {
        // The kernel must not reach from one sequence into the next.
        let embeddings = layout.restore(embeddings);
        let ngrams = self.conv.forward(embeddings.swap_dims(1, 2)).swap_dims(1, 2);
        let ngrams = match layout {
            TokenLayout::Padded(_) => layout.zero_padding(ngrams),
            TokenLayout::Unpadded(unpadding) => unpadding.unpad(ngrams),
        };
        let ngrams = self.activation.forward(self.dropout.forward(ngrams));
        layout.zero_padding(self.layer_norm.forward(layer_output + ngrams))
    }
}
