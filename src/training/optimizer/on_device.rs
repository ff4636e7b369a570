//! The step of parameters outside of host memory: they are taken out of the model one by one, so that nobody else holds them
//! and they change in place, updated together, in a few launches, and put back.

use std::collections::{BTreeMap, HashMap};

use burn::{
    Tensor,
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::Shape,
};

use super::{DeviceMoments, Moments};
use crate::kernels::{self, Coefficients, Parameter};

/// Parameters that were taken out of a model.
#[derive(Default)]
pub(super) struct OnDevice {
    parameters: Vec<Parameter>,
    /// Of each parameter.
    places: Vec<Place>,
}

/// Where a parameter belongs.
struct Place {
    id: ParamId,
    path: String,
    shape: Shape,
    is_require_grad: bool,
}

impl OnDevice {
    /// Takes a parameter. Returns what stands in its place until [`update`](Self::update).
    pub fn take<const D: usize>(
        &mut self,
        id: ParamId,
        path: String,
        weights: Tensor<D>,
        gradient: Tensor<1>,
        DeviceMoments { first, second }: DeviceMoments,
        coefficients: Coefficients,
    ) -> Tensor<D> {
        let stand_in = Tensor::empty([1; D], &weights.device());
        let (shape, is_require_grad) = (weights.shape(), weights.is_require_grad());
        self.places.push(Place { id, path, shape, is_require_grad });
        let weights = weights.inner().flatten(0, D - 1);
        self.parameters.push(Parameter { weights, gradient, moments: [first, second], coefficients });
        stand_in
    }

    /// Updates all parameters, and puts them and their moments back.
    pub fn update<M: Module>(self, model: M, moments: &mut BTreeMap<String, Moments>) -> M {
        if self.parameters.is_empty() {
            return model;
        }
        let mut updated = HashMap::new();
        for (place, [weights, first, second]) in self.places.into_iter().zip(kernels::adamw(self.parameters)) {
            moments.insert(place.path.clone(), Moments::Device(DeviceMoments { first, second }));
            updated.insert(place.id, (place, weights));
        }
        model.map(&mut PutBack(updated))
    }
}

struct PutBack(HashMap<ParamId, (Place, Tensor<1>)>);

impl ModuleMapper for PutBack {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((place, weights)) = self.0.remove(&param.id) else { return param };
        param.map(|_| Tensor::from_inner(weights.reshape(place.shape)).set_require_grad(place.is_require_grad))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Model {
        matrix: Param<Tensor<2>>,
        frozen: Param<Tensor<1>>,
        vector: Param<Tensor<1>>,
    }

    const COEFFICIENTS: Coefficients = Coefficients {
        factor: 0.5,
        beta_1: 0.9,
        beta_2: 0.99,
        epsilon: 1e-6,
        correction_1: 0.1,
        correction_2: 0.01,
        rate: 1e-2,
        decay: 0.01,
    };

    fn flat(count: usize, value: f32) -> Tensor<1> {
        Tensor::full([count], value, &Device::flex())
    }

    /// Takes every parameter but the frozen one.
    struct Take(OnDevice);

    impl ModuleMapper for Take {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let id = param.id;
            param.map(|tensor| {
                if !tensor.is_require_grad() {
                    return tensor;
                }
                let count = tensor.shape().num_elements();
                let moments = DeviceMoments { first: flat(count, 0.2), second: flat(count, 0.3) };
                self.0.take(id, format!("of {count}"), tensor, flat(count, 2.0), moments, COEFFICIENTS)
            })
        }
    }

    #[test]
    fn parameters_come_back_updated_in_their_places() {
        let device = Device::flex().autodiff();
        let model = Model {
            matrix: Param::from_tensor(Tensor::ones([2, 3], &device)),
            frozen: Param::from_tensor(Tensor::ones([5], &device)).no_grad(),
            vector: Param::from_tensor(Tensor::ones([4], &device) * 7.0),
        };
        let ids = [model.matrix.id, model.frozen.id, model.vector.id];
        let mut take = Take(OnDevice::default());
        let taken = model.map(&mut take);
        assert_eq!((taken.matrix.dims(), taken.vector.dims()), ([1, 1], [1]), "stand-ins");
        let mut moments = BTreeMap::new();
        let model = take.0.update(taken, &mut moments);
        assert_eq!([model.matrix.id, model.frozen.id, model.vector.id], ids);
        assert!(model.matrix.is_require_grad() && model.vector.is_require_grad() && !model.frozen.is_require_grad());
        let found = [model.matrix.val().flatten(0, 1), model.vector.val()].map(|tensor: Tensor<1>| tensor.inner());
        for (found, (count, value)) in found.into_iter().zip([(6, 1.0), (4, 7.0)]) {
            let [weights, first, second] = Parameter {
                weights: flat(count, value),
                gradient: flat(count, 2.0),
                moments: [flat(count, 0.2), flat(count, 0.3)],
                coefficients: COEFFICIENTS,
            }
            .step();
            found.into_data().assert_eq(&weights.into_data(), true);
            let Some(Moments::Device(kept)) = moments.remove(&format!("of {count}")) else { panic!("no moments") };
            kept.first.into_data().assert_eq(&first.into_data(), true);
            kept.second.into_data().assert_eq(&second.into_data(), true);
        }
        assert_eq!(model.matrix.dims(), [2, 3]);
        model.frozen.val().into_data().assert_eq(&Tensor::<1>::ones([5], &Device::flex()).into_data(), true);
    }

    #[test]
    fn nothing_taken_is_nothing_to_do() {
        let device = Device::flex().autodiff();
        let model = Param::from_tensor(Tensor::<1>::ones([3], &device));
        let mut moments = BTreeMap::new();
        let model = OnDevice::default().update(model, &mut moments);
        assert!(moments.is_empty() && model.dims() == [3]);
    }
}
