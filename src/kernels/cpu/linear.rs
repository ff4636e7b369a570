//! x W + b as one operation, with its backward pass.
//!
//! ```text
//! y = x W + b,   dx = G W^T,   dW = x^T G,   db = sum_rows G
//! ```
//!
//! burn-flex fills each product's buffer with zeros, copies it to another alignment, and adds the bias in a pass of its own,
//! which together cost a tenth of a training step.

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use super::{
    extension::*,
    lanes::vectorized,
    matrix::{Matrix, product},
};

/// `x weight + bias` on a host device, in f32.
///
/// # Shapes
/// - x: [.., inputs]
/// - weight: [inputs, outputs]
/// - bias: [outputs]
/// - output: [.., outputs]
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    // Operations take a fixed number of tensors: an absent bias is one that nobody reads.
    let biased = bias.is_some();
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1], &x.device()));
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::host_linear(x, weight, bias, biased))
}

/// The operation, for the host backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
pub(crate) trait HostLinear: Backend {
    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
    ) -> FloatTensor<Self>;
}

fn forward<B: HostBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    biased: bool,
) -> FloatTensor<B> {
    let mut shape = x.shape();
    let [inputs, outputs] = weight.shape().dims();
    let rows = shape.num_elements() / inputs;
    let last = shape.num_dims() - 1;
    shape[last] = outputs;
    let (x, weight, bias) = (B::values(x), B::values(weight), B::values(bias));
    let x = Matrix::new(x.as_ref(), 0, rows, inputs, inputs);
    let weight = Matrix::new(weight.as_ref(), 0, inputs, outputs, outputs);
    B::tensor(product(x, weight, biased.then_some(bias.as_ref())), shape)
}

vectorized! {
    /// The sum over all rows.
    fn sum_rows<'a>(sums: &'a mut [f32], values: &'a [f32]) {
        for row in values.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
    }
}

#[cfg(feature = "flex")]
impl HostLinear for Flex {
    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
    ) -> FloatTensor<Self> {
        forward::<Self>(x, weight, bias, biased)
    }
}

#[cfg(feature = "ndarray")]
impl HostLinear for NdArray {
    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
    ) -> FloatTensor<Self> {
        forward::<Self>(x, weight, bias, biased)
    }
}

#[derive(Debug)]
struct HostLinearBackward;

impl<B: HostBackend> Backward<B, 3> for HostLinearBackward {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::values(grads.consume::<B>(&ops.node));
        let [x, weight] = ops.state;
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let [inputs, outputs] = weight_shape.dims();
        let rows = x_shape.num_elements() / inputs;
        let by_row = Matrix::new(gradient.as_ref(), 0, rows, outputs, outputs);
        let [into_x, into_weight, into_bias] = ops.parents;
        if let Some(node) = into_x {
            let weight = B::values(weight);
            let weight = Matrix::new(weight.as_ref(), 0, inputs, outputs, outputs);
            grads.register::<B>(node.id, B::tensor(product(by_row, weight.transposed(), None), x_shape));
        }
        if let Some(node) = into_weight {
            let x = B::values(x);
            let x = Matrix::new(x.as_ref(), 0, rows, inputs, inputs);
            grads.register::<B>(node.id, B::tensor(product(x.transposed(), by_row, None), weight_shape));
        }
        if let Some(node) = into_bias {
            let mut sums = vec![0.0; outputs];
            sum_rows(&mut sums, gradient.as_ref());
            grads.register::<B>(node.id, B::tensor(sums, [outputs].into()));
        }
    }
}

impl<B: HostLinear + HostBackend, C: CheckpointStrategy> HostLinear for Autodiff<B, C> {
    fn host_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.into_primitive());
        match HostLinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let output = forward::<B>(x.clone(), weight.clone(), bias, biased);
                prep.finish([x, weight], output)
            }
            OpsKind::UnTracked(prep) => prep.finish(forward::<B>(x, weight, bias, biased)),
        }
    }
}
