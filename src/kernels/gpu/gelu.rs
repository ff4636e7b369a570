//! The exact GELU on GPUs, computed in f32: x P(x), with the normal distribution P and its density p.

use burn::{
    Tensor,
    backend::{
        Autodiff, Backend, Dispatch, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
        cubecl::dtype_to_elem_type, tensor::FloatTensor,
    },
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::CubeDim};

use super::launch::like;
use crate::kernels::operation::{Operation, differentiable};

/// Bytes that a unit reads at a time.
const LINE: usize = 16;

/// Units of a cube.
pub(super) const UNITS: usize = 256;

/// x P(x).
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Gelu>::exact_gelu(x.into_dispatch()))
}

/// The function.
#[backend_extension(Cube: cfg(feature = "gpu"), Autodiff, Fusion: cfg(feature = "gpu"))]
pub trait Gelu: Backend {
    /// x P(x).
    #[fusion(dtype = x, shape = x)]
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Its gradient.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait GeluSlope: Backend {
    /// gradient (P(x) + x p(x)).
    #[fusion(dtype = x, shape = x)]
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Gelu for CubeBackend {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        launch(x, None)
    }
}

impl GeluSlope for CubeBackend {
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        launch(x, Some(gradient))
    }
}

/// The value, or the gradient of x.
fn launch(x: CubeTensor, gradient: Option<CubeTensor>) -> CubeTensor {
    let x = into_contiguous(x);
    let output = like(&x, x.meta.shape().clone(), x.dtype);
    let count = x.meta.num_elements();
    if count == 0 {
        return output;
    }
    // 16 bytes, where all are whole.
    let line = LINE / x.dtype.size();
    let at_a_time = if count.is_multiple_of(line) { line } else { 1 };
    let (client, dtype) = (x.client.clone(), dtype_to_elem_type(x.dtype));
    let units = CubeDim::new_1d(UNITS as u32);
    let cubes = calculate_cube_count_elemwise(&client, count / at_a_time, units);
    let (x, target, count) = (x.into_tensor_arg(), output.clone().into_tensor_arg(), (count / at_a_time) as u32);
    match gradient.map(into_contiguous) {
        None => kernels::value::launch(&client, cubes, units, at_a_time, x, target, count, dtype),
        Some(gradient) => {
            let gradient = gradient.into_tensor_arg();
            kernels::slope::launch(&client, cubes, units, at_a_time, x, gradient, target, count, dtype);
        }
    }
    output
}

impl<B: Gelu + GeluSlope, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(Value, [x])
    }
}

/// The operation.
#[derive(Clone, Debug)]
struct Value;

impl<B: Gelu + GeluSlope> Operation<B, 1> for Value {
    /// x
    type Kept = FloatTensor<B>;

    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::exact_gelu(x)
    }

    fn forward_keeping(&self, [x]: [FloatTensor<B>; 1], _: [bool; 1]) -> (FloatTensor<B>, FloatTensor<B>) {
        (B::exact_gelu(x.clone()), x)
    }

    fn backward(&self, x: FloatTensor<B>, gradient: FloatTensor<B>, _: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::exact_gelu_backward(x, gradient))]
    }
}

pub(super) mod kernels {
    use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

    use cubecl::{cube, prelude::*};

    /// P(x).
    #[cube]
    fn distribution<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
        (Vector::erf(x * Vector::new(FRAC_1_SQRT_2)) + Vector::new(1.0f32)) * Vector::new(0.5f32)
    }

    /// A unit some numbers.
    ///
    /// # Shapes
    /// - all: \[count\]
    #[cube(launch)]
    pub fn value<F: Float, N: Size>(
        x: &Tensor<Vector<F, N>>,
        output: &mut Tensor<Vector<F, N>>,
        count: u32,
        #[define(F)] _dtype: ElemType,
    ) {
        if ABSOLUTE_POS < count as usize {
            let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
            output[ABSOLUTE_POS] = Vector::cast_from(x * distribution::<N>(x));
        }
    }

    /// gradient (P(x) + x p(x)), as [`value`].
    #[cube(launch)]
    pub fn slope<F: Float, N: Size>(
        x: &Tensor<Vector<F, N>>,
        gradient: &Tensor<Vector<F, N>>,
        output: &mut Tensor<Vector<F, N>>,
        count: u32,
        #[define(F)] _dtype: ElemType,
    ) {
        if ABSOLUTE_POS < count as usize {
            let x = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]);
            let gradient = Vector::<f32, N>::cast_from(gradient[ABSOLUTE_POS]);
            let density =
                Vector::exp(x * x * Vector::new(-0.5f32)) * Vector::new(0.5f32 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            output[ABSOLUTE_POS] = Vector::cast_from(gradient * (distribution::<N>(x) + x * density));
        }
    }
}
