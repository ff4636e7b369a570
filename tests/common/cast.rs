//! A model in another type.

use burn::{
    module::{ModuleMapper, Param},
    tensor::{DType, Tensor},
};

/// Casts every parameter.
pub struct Cast(pub DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
