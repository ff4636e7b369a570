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
