//! Parameters with other values.

use burn::{Tensor, module::Param};

/// The parameter with another value. It learns as before: on a device with gradients, the value becomes a leaf of the tape,
/// whether it was made on the tape or outside of it.
///
/// (burn's `transform_for_load` alone leaves a value that was made outside of the tape there, and then it never learns.)
pub(crate) fn with_value<const D: usize>(param: Param<Tensor<D>>, value: Tensor<D>) -> Param<Tensor<D>> {
    let (id, device) = (param.id, param.lazy_device());
    let value = if device.is_autodiff() { Tensor::from_inner(value.inner()) } else { value };
    param.transform_for_load(value, id)
}

#[cfg(test)]
mod tests {
    use burn::{
        nn::Initializer,
        tensor::{DType, Device},
    };

    use super::*;

    #[test]
    fn a_value_learns_wherever_it_was_made() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let fresh = || -> Param<Tensor<1>> { Initializer::Ones.init([2], &device) };
            let outside = fresh().val().inner().cast(DType::F16);
            for value in [outside, fresh().val() * 2.0] {
                let param = with_value(fresh(), value);
                assert_eq!(param.val().is_require_grad(), device.is_autodiff());
                if device.is_autodiff() {
                    let loss = (param.val() * 3.0).sum();
                    assert!(param.val().grad(&loss.backward()).is_some());
                }
            }
            assert!(!with_value(fresh().set_require_grad(false), fresh().val()).val().is_require_grad());
        }
    }
}
