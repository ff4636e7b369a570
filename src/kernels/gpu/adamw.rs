//! AdamW's arithmetic on GPUs: in place, as many parameters in a launch as a kernel takes. The formulas stand in
//! [`training::optimizer`](crate::training).

use burn::{
    Tensor,
    backend::{Backend, Dispatch, backend_extension, fusion::custom::TensorSpec},
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::CubeDim};

use super::many::{Many, ends, items_at_once, numbers_at_once};
use crate::kernels::cpu::adamw::{Coefficients, Parameter};

/// Tensors of a parameter: weights, gradient, first and second moment.
const OF_PARAMETER: usize = 4;

/// The updated weights and moments, in f32.
pub(crate) fn step(parameters: Vec<Parameter>) -> Vec<[Tensor<1>; 3]> {
    let coefficients = parameters.iter().map(|parameter| parameter.coefficients).collect();
    let tensors = parameters
        .into_iter()
        .flat_map(|Parameter { weights, gradient, moments: [first, second], .. }| [weights, gradient, first, second]);
    let mut updated = <Dispatch as GpuAdamW>::adamw(Many::of(tensors), coefficients).tensors();
    std::iter::from_fn(|| Some([updated.next()?, updated.next()?, updated.next()?])).collect()
}

/// The operation, which has no gradient.
#[backend_extension(Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait GpuAdamW: Backend {
    /// Updated weights, first and second moment of each parameter, from its weights, gradient, first and second moment.
    #[fusion(meta = |tensors, _coefficients| {
        let of_one = |tensors: &[TensorSpec]| [0, 2, 3].map(|at: usize| tensors[at].clone());
        tensors.chunks_exact(OF_PARAMETER).flat_map(of_one).collect::<Vec<_>>()
    })]
    fn adamw(#[extension_type] tensors: Many<Self>, coefficients: Vec<Coefficients>) -> Many<Self>;
}

impl GpuAdamW for CubeBackend {
    fn adamw(tensors: Many<Self>, coefficients: Vec<Coefficients>) -> Many<Self> {
        // In place, unless somebody else looks at them.
        let own = |tensor: CubeTensor| if tensor.can_mut() { tensor } else { tensor.copy() };
        let mut tensors = tensors.0.into_iter().map(into_contiguous);
        let mut next = || tensors.next().expect("four tensors for each parameter");
        let parameters: Vec<_> = coefficients.iter().map(|_| (own(next()), next(), own(next()), own(next()))).collect();
        let Some(client) = parameters.first().map(|(weights, ..)| weights.client.clone()) else {
            return Many(Vec::new());
        };
        let at_once = items_at_once(&client, OF_PARAMETER);
        for (parameters, coefficients) in parameters.chunks(at_once).zip(coefficients.chunks(at_once)) {
            let numbers = numbers_at_once(parameters.iter().map(|(weights, ..)| weights));
            let ends = ends(parameters.iter().map(|(weights, ..)| weights), numbers);
            let units = CubeDim::new_1d(kernel::UNITS as u32);
            let Coefficients { factor, beta_1, beta_2, epsilon, correction_2, .. } = coefficients[0];
            kernel::adamw::launch(
                &client,
                calculate_cube_count_elemwise(&client, ends[ends.len() - 1], units),
                units,
                numbers,
                parameters.iter().map(|(weights, ..)| weights.clone().into_tensor_arg()).collect(),
                parameters.iter().map(|(_, gradient, ..)| gradient.clone().into_tensor_arg()).collect(),
                parameters.iter().map(|(_, _, first, _)| first.clone().into_tensor_arg()).collect(),
                parameters.iter().map(|(.., second)| second.clone().into_tensor_arg()).collect(),
                ends.iter().map(|end| *end as u32).collect(),
                coefficients.iter().map(|of_one| (1.0 - of_one.rate * of_one.decay) as f32).collect(),
                coefficients.iter().map(|of_one| (of_one.rate / of_one.correction_1) as f32).collect(),
                factor as f32,
                beta_1 as f32,
                (1.0 - beta_1) as f32,
                beta_2 as f32,
                (1.0 - beta_2) as f32,
                epsilon as f32,
                (1.0 / correction_2) as f32,
            );
        }
        Many(parameters.into_iter().flat_map(|(weights, _, first, second)| [weights, first, second]).collect())
    }
}

pub(super) mod kernel {
    use cubecl::{cube, prelude::*};

    /// Units of a cube.
    pub const UNITS: usize = 256;

    /// The parameters lie end to end: a unit updates N numbers of the one that its place falls into.
    ///
    /// # Shapes
    /// - weights, gradients, moments: \[count\], with counts of their own
    /// - ends, decays, rates: one a parameter; ends in units of N numbers
    #[cube(launch)]
    pub fn adamw<N: Size>(
        weights: &mut Sequence<OwnedTensor<Vector<f32, N>>>,
        gradients: &Sequence<OwnedTensor<Vector<f32, N>>>,
        first: &mut Sequence<OwnedTensor<Vector<f32, N>>>,
        second: &mut Sequence<OwnedTensor<Vector<f32, N>>>,
        ends: &Sequence<u32>,
        decays: &Sequence<f32>,
        rates: &Sequence<f32>,
        factor: f32,
        beta_1: f32,
        rest_1: f32,
        beta_2: f32,
        rest_2: f32,
        epsilon: f32,
        correction_2: f32,
    ) {
        let mut start = 0usize;
        #[unroll]
        for parameter in 0..weights.len() {
            let end = ends[parameter] as usize;
            if ABSOLUTE_POS >= start && ABSOLUTE_POS < end {
                let at = ABSOLUTE_POS - start;
                let weights = weights.index_mut(parameter).as_mut_slice();
                let first = first.index_mut(parameter).as_mut_slice();
                let second = second.index_mut(parameter).as_mut_slice();
                let g = gradients.index(parameter).as_slice()[at] * Vector::new(factor);
                let m = first[at] * Vector::new(beta_1) + g * Vector::new(rest_1);
                let v = second[at] * Vector::new(beta_2) + g * g * Vector::new(rest_2);
                first[at] = m;
                second[at] = v;
                let root = Vector::sqrt(v * Vector::new(correction_2)) + Vector::new(epsilon);
                weights[at] = weights[at] * Vector::new(decays[parameter]) - m / root * Vector::new(rates[parameter]);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::kernels::gpu::{any_device, sums};

    /// More than one launch takes, of different sizes.
    const COUNT: usize = 40;

    fn numbers(count: usize, seed: usize, device: &Device) -> Tensor<1> {
        let values: Vec<f32> =
            (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, [count]), device)
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().expect("numbers in f32")
    }

    /// Sizes of which the kernels read four numbers at once, and one.
    fn sizes() -> [fn(usize) -> usize; 2] {
        [|number| 4 * (number * 29 + 1), |number| number * 113 + 1]
    }

    #[test]
    fn many_parameters_are_updated_as_each_alone() {
        let device = any_device();
        for size in sizes() {
            let parameters: Vec<Parameter> = (0..COUNT)
                .map(|number| {
                    let [weights, gradient, first, second] =
                        [0, 1, 2, 3].map(|part| numbers(size(number), number * 4 + part, &device));
                    let coefficients = Coefficients {
                        factor: 0.5,
                        beta_1: 0.9,
                        beta_2: 0.99,
                        epsilon: 1e-6,
                        correction_1: 0.19,
                        correction_2: 0.02,
                        rate: 1e-3 * (number + 1) as f64,
                        decay: if number % 2 == 0 { 0.01 } else { 0.0 },
                    };
                    Parameter { weights, gradient, moments: [first, second.square()], coefficients }
                })
                .collect();
            let expected: Vec<_> =
                parameters.clone().into_iter().map(|parameter| parameter.step().map(values)).collect();
            let (kept, before) = (parameters[3].weights.clone(), values(parameters[3].weights.clone()));
            for (number, (found, expected)) in step(parameters).into_iter().zip(&expected).enumerate() {
                for (found, expected) in found.map(values).iter().zip(expected) {
                    assert_eq!(found.len(), size(number));
                    for (found, expected) in found.iter().zip(expected) {
                        // A few roundings each, in another order.
                        assert!(
                            (found - expected).abs() <= 2e-6 * expected.abs().max(0.1),
                            "{number}: {found}, {expected}"
                        );
                    }
                }
            }
            assert_eq!(values(kept), before, "somebody else's weights have changed");
        }
    }

    #[test]
    fn squares_of_many_tensors_add_up() {
        let device = any_device();
        for size in sizes() {
            let tensors: Vec<_> = (0..COUNT).map(|number| numbers(size(number), number, &device)).collect();
            let exact: f64 =
                tensors.iter().flat_map(|tensor| values(tensor.clone())).map(|value| f64::from(value).powi(2)).sum();
            let found: f64 = values(sums::squares(tensors)).into_iter().map(f64::from).sum();
            assert!((found - exact).abs() < 1e-6 * exact, "{found} instead of {exact}");
        }
    }
}
