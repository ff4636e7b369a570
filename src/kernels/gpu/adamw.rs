//! AdamW's arithmetic on GPUs: one launch a parameter, in place. The formulas stand in
//! [`training::optimizer`](crate::training).

use burn::{
    Tensor,
    backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::CubeDim};

use crate::kernels::cpu::adamw::Coefficients;

/// The updated weights and moments, in f32.
///
/// # Shapes
/// - all: [count]
pub(crate) fn step(
    coefficients: &Coefficients,
    weights: Tensor<1>,
    gradient: Tensor<1>,
    [first, second]: [Tensor<1>; 2],
) -> [Tensor<1>; 3] {
    let [weights, gradient, first, second] = [weights, gradient, first, second].map(Tensor::into_dispatch);
    let (weights, first, second) = <Dispatch as GpuAdamW>::adamw(weights, gradient, first, second, *coefficients);
    [weights, first, second].map(Tensor::from_dispatch)
}

/// The operation, which has no gradient.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait GpuAdamW: Backend {
    /// Updated weights, first and second moments.
    #[fusion(meta = |weights, _gradient, first, second, _coefficients| (weights.clone(), first.clone(), second.clone()))]
    fn adamw(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        coefficients: Coefficients,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl GpuAdamW for CubeBackend {
    fn adamw(
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        coefficients: Coefficients,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        // In place, unless somebody else looks at them.
        let own = |tensor: CubeTensor| if tensor.can_mut() { tensor } else { tensor.copy() };
        let [weights, first, second] = [weights, first, second].map(|tensor| own(into_contiguous(tensor)));
        let gradient = into_contiguous(gradient);
        let Coefficients { factor, beta_1, beta_2, epsilon, correction_1, correction_2, rate, decay } = coefficients;
        let client = &weights.client;
        let count = weights.meta.num_elements();
        let units = CubeDim::new(client, count);
        kernel::adamw::launch(
            client,
            calculate_cube_count_elemwise(client, count, units),
            units,
            weights.clone().into_tensor_arg(),
            gradient.into_tensor_arg(),
            first.clone().into_tensor_arg(),
            second.clone().into_tensor_arg(),
            factor as f32,
            beta_1 as f32,
            (1.0 - beta_1) as f32,
            beta_2 as f32,
            (1.0 - beta_2) as f32,
            epsilon as f32,
            (1.0 / correction_2) as f32,
            (1.0 - rate * decay) as f32,
            (rate / correction_1) as f32,
        );
        (weights, first, second)
    }
}

pub(super) mod kernel {
    use cubecl::{cube, prelude::*};

    /// A unit a number.
    #[cube(launch)]
    pub fn adamw(
        weights: &mut Tensor<f32>,
        gradient: &Tensor<f32>,
        first: &mut Tensor<f32>,
        second: &mut Tensor<f32>,
        factor: f32,
        beta_1: f32,
        rest_1: f32,
        beta_2: f32,
        rest_2: f32,
        epsilon: f32,
        correction_2: f32,
        decay: f32,
        rate: f32,
    ) {
        let at = ABSOLUTE_POS;
        if at < weights.len() {
            let g = gradient[at] * factor;
            let m = first[at] * beta_1 + g * rest_1;
            let v = second[at] * beta_2 + g * g * rest_2;
            first[at] = m;
            second[at] = v;
            weights[at] = weights[at] * decay - m / (f32::sqrt(v * correction_2) + epsilon) * rate;
        }
    }
}
