//! The exact GELU as one pass forward and one backward: x Phi(x), and Phi(x) + x phi(x).

// burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
#![allow(deprecated)]

use rayon::prelude::*;

use super::{
    extension::*,
    lanes::{self, vectorized},
};

/// Elements that one thread takes at a time: 64 KB, so that a chunk stays in cache.
const CHUNK: usize = 16 * 1024;

/// x Phi(x) on a host device, in f32.
///
/// # Shapes
/// - x, output: any, the same
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::exact_gelu(x.into_dispatch()))
}

/// The operation, for the host backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Autodiff)]
pub(crate) trait ExactGelu: Backend {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

fn forward<B: HostBackend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let x = B::values(x);
    let mut output = vec![0.0; shape.num_elements()];
    output.par_chunks_mut(CHUNK).zip(x.as_ref().par_chunks(CHUNK)).for_each(|(output, x)| {
        value(output, x);
    });
    B::tensor(output, shape)
}

fn backward<B: HostBackend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let (x, gradient) = (B::values(x), B::values(gradient));
    let mut output = vec![0.0; shape.num_elements()];
    let inputs = x.as_ref().par_chunks(CHUNK).zip(gradient.as_ref().par_chunks(CHUNK));
    output.par_chunks_mut(CHUNK).zip(inputs).for_each(|(output, (x, gradient))| {
        derivative(output, x, gradient);
    });
    B::tensor(output, shape)
}

vectorized! {
    /// x Phi(x)
    fn value<'a>(output: &'a mut [f32], x: &'a [f32]) {
        for (output, x) in output.iter_mut().zip(x) {
            *output = x * lanes::gaussian(*x).0;
        }
    }
}

vectorized! {
    /// gradient (Phi(x) + x phi(x))
    fn derivative<'a>(output: &'a mut [f32], x: &'a [f32], gradient: &'a [f32]) {
        for ((output, x), gradient) in output.iter_mut().zip(x).zip(gradient) {
            let (distribution, density) = lanes::gaussian(*x);
            *output = gradient * (distribution + x * density);
        }
    }
}

#[cfg(feature = "flex")]
impl ExactGelu for Flex {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        forward::<Self>(x)
    }
}

#[cfg(feature = "ndarray")]
impl ExactGelu for NdArray {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        forward::<Self>(x)
    }
}

#[derive(Debug)]
struct ExactGeluBackward;

impl<B: HostBackend> Backward<B, 1> for ExactGeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            grads.register::<B>(node.id, backward::<B>(ops.state, gradient));
        }
    }
}

impl<B: ExactGelu + HostBackend, C: CheckpointStrategy> ExactGelu for Autodiff<B, C> {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match ExactGeluBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let x = x.into_primitive();
                prep.finish(x.clone(), B::exact_gelu(x))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::exact_gelu(x.into_primitive())),
        }
    }
}
