//! The n-gram induced encoding of DeBERTa v2 (`ConvLayer` in the reference; DeBERTa v2's nGiE).

use burn::{
    Tensor,
    module::Module,
    nn::{
        LayerNorm, PaddingConfig1d,
        conv::{Conv1d, Conv1dConfig},
    },
};

use crate::{
    config::Activation,
    kernels::affine,
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
            .init(init.device);
        ConvLayer {
            conv: Conv1d {
                weight: init.normal([width, width / self.groups, self.kernel_size]),
                bias: Some(init.zeros(width)),
                ..conv
            },
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
        let ngrams = self.ngrams(embeddings);
        let ngrams = match layout {
            TokenLayout::Padded(_) => layout.zero_padding(ngrams),
            TokenLayout::Unpadded(unpadding) => unpadding.unpad(ngrams),
        };
        let ngrams = self.activation.forward(self.dropout.forward(ngrams));
        layout.zero_padding(self.layer_norm.forward(layer_output + ngrams))
    }

    /// The convolution of each token with its neighbours, as products. burn's own may be in TF32 on a GPU.
    ///
    /// # Shapes
    /// - embeddings, output: [batch, length, hidden], padded
    fn ngrams(&self, embeddings: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = embeddings.dims();
        let weight = self.conv.weight.val();
        let [outputs, inputs, size] = weight.dims();
        let groups = width / inputs;
        let outputs = outputs / groups;
        let padded = match size {
            1 => embeddings,
            _ => {
                let zeros = Tensor::zeros([batch, size / 2, width], (&embeddings.device(), embeddings.dtype()));
                Tensor::cat(vec![zeros.clone(), embeddings, zeros], 1)
            }
        };
        let of_group = |group: usize| {
            let channels = padded.clone().narrow(2, group * inputs, inputs);
            let neighbours = (0..size).map(|first| channels.clone().narrow(1, first, length)).collect();
            let weight = weight.clone().narrow(0, group * outputs, outputs);
            let weight = weight.permute([2, 1, 0]).reshape([size * inputs, outputs]);
            let bias = self.conv.bias.as_ref().map(|bias| bias.val().narrow(0, group * outputs, outputs));
            affine(Tensor::cat(neighbours, 2), weight, bias)
        };
        Tensor::cat((0..groups).map(of_group).collect(), 2)
    }
}
