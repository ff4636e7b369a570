//! Switch feed-forward layers (Fedus and others, "Switch Transformers", JMLR 2022): a router sends each token to one of
//! several networks, the experts.
//!
//! ```text
//! p = softmax(W x)        e = argmax p        y = p_e E_e(x), then the layer's residual: LayerNorm(y + x)
//! ```
//!
//! An expert takes a limited number of tokens, in order of position. For a token that finds no place y is 0, so that only
//! the residual carries it on. Padding is never routed. The router computes in f32 whatever the model's type, so that its
//! decisions do not depend on it (the paper's selective precision).
//!
//! The arithmetic is that of the tokens: each expert maps the rows that it takes in one product, and they are put back in
//! their places. All sums are in a fixed order.

mod dispatch;
mod routing;

use burn::{
    Tensor,
    module::Module,
    tensor::{DType, TensorData, activation::softmax},
};

use self::dispatch::Dispatch;
pub use self::routing::{RoutingFigures, RoutingRecord};
use super::{
    context::Stream,
    dropout::Dropout,
    init::Init,
    linear::{Linear, LinearRole},
    masked_positions::{MaskedPositions, indices},
    mlp::Mlp,
    token_layout::TokenLayout,
};
use crate::{
    config::{Activation, SwitchConfig},
    kernels::{affine, draws::uniforms, select_rows},
};

/// Factor of the variance of fresh weights, `INIT_SCALE / inputs` (the paper's section 2.4). Draws beyond two standard
/// deviations are not repeated.
const INIT_SCALE: f64 = 0.1;

/// Which rows of a layer's states are tokens, and where the router's figures go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoutedTokens<'a> {
    /// How the tokens lie.
    pub layout: &'a TokenLayout,
    /// The positions that the states belong to, if these are not all.
    pub positions: Option<&'a MaskedPositions>,
    /// Where losses and figures are kept, if someone wants them.
    pub record: Option<&'a RoutingRecord>,
}

impl RoutedTokens<'_> {
    /// The rows of each sequence's tokens in states [batch, length, hidden].
    fn sequences(self, shape: [usize; 2]) -> Vec<Vec<usize>> {
        match self.positions {
            Some(positions) => positions.sequences(),
            None => self.layout.sequences(shape),
        }
    }
}

/// The router and its experts.
#[derive(Module, Debug)]
pub struct SwitchNetwork {
    /// [hidden, experts], without a bias.
    router: Linear,
    experts: Vec<Mlp>,
    /// Of the experts' inner states.
    dropout: Dropout,
    #[module(skip)]
    config: SwitchConfig,
}

impl SwitchNetwork {
    pub(crate) fn new(
        init: &Init<'_>,
        [hidden, inner]: [usize; 2],
        activation: Activation,
        config: &SwitchConfig,
    ) -> Self {
        let scaled = |inputs: usize| Init { std: (INIT_SCALE / inputs as f64).sqrt(), ..*init };
        let (widen, narrow) = (scaled(hidden), scaled(inner));
        let expert = |_| Mlp::new(widen.linear(hidden, inner), narrow.linear(inner, hidden), activation);
        Self {
            router: widen.linear_without_bias(hidden, config.num_experts),
            experts: (0..config.num_experts).map(expert).collect(),
            dropout: Dropout::new(config.expert_dropout),
            config: config.clone(),
        }
    }

    /// The linear maps of the experts. The router is none of them: it always computes in f32.
    pub(crate) fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        self.experts.iter_mut().flat_map(Mlp::linears).collect()
    }

    /// The element type of its parameters.
    pub(crate) fn dtype(&self) -> DType {
        self.router.dtype()
    }

    /// # Shapes
    /// - output: [batch, length, hidden]; zero where no expert took the token, and at padding
    pub(crate) fn forward(&self, Stream { residual, input }: Stream, tokens: RoutedTokens<'_>) -> Tensor<3> {
        let (shape @ [batch, length, hidden], device) = (input.dims(), input.device());
        let (rows, dtype) = (batch * length, input.dtype());
        let [unrounded, states] = [residual, input].map(|states| states.reshape([rows, hidden]));
        let logits = self.logits(unrounded);
        let probabilities = softmax(logits.clone(), 1);
        let on_host = probabilities.clone().detach().into_data();
        let on_host = on_host.as_slice::<f32>().expect("the router computes in f32");
        let is_training = self.dropout.is_training(&device);
        let dispatch = Dispatch::new(on_host, tokens.sequences([batch, length]), &self.config, is_training);
        if let Some(record) = tokens.record {
            record.keep(&self.config, logits, probabilities.clone(), on_host, &dispatch);
        }
        let taken = dispatch.taken();
        if taken.is_empty() {
            return Tensor::zeros(shape, (&device, dtype));
        }
        let mapped = dispatch.experts().map(|(expert, rows)| {
            let states = select_rows(states.clone(), indices(rows.iter().copied(), &device));
            let expert = &self.experts[expert];
            expert.outer(self.dropout.forward(expert.inner(states)))
        });
        let mapped = Tensor::cat(mapped.collect(), 0);
        // 1 where a row's expert is. Not a `gather`, of which burn's fused kernels for GPUs read other elements here.
        let experts = dispatch.experts().flat_map(|(expert, rows)| rows.iter().map(move |_| expert));
        let count = self.config.num_experts;
        let one_hot = experts.flat_map(|expert| (0..count).map(move |place| f32::from(u8::from(place == expert))));
        let one_hot = TensorData::new(one_hot.collect(), [taken.len(), count]);
        let chosen = Tensor::<2>::from_data(one_hot, (&device, DType::F32));
        // Where each row's state is among those of the experts; a row of zeros stands behind them.
        let mut places = vec![taken.len(); rows];
        taken.iter().enumerate().for_each(|(place, row)| places[*row] = place);
        let gates = (select_rows(probabilities, indices(taken, &device)) * chosen).sum_dim(1);
        let zeros = Tensor::zeros([1, hidden], (&device, dtype));
        let output = Tensor::cat(vec![mapped * gates.cast(dtype), zeros], 0);
        select_rows(output, indices(places, &device)).reshape(shape)
    }

    /// The router's logits.
    ///
    /// # Shapes
    /// - states: [rows, hidden]
    /// - output: [rows, experts], in f32
    fn logits(&self, states: Tensor<2>) -> Tensor<2> {
        let noise = self.config.router_jitter_noise;
        let states = states.cast(DType::F32);
        let device = states.device();
        let states = match noise > 0.0 && self.dropout.is_training(&device) {
            true => {
                let factors = uniforms(states.dims(), &device) * (2.0 * noise) + (1.0 - noise);
                states * factors
            }
            false => states,
        };
        affine(states, self.router.weight.val(), None)
    }
}

#[cfg(test)]
mod tests;
