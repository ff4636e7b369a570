//! The CPU backends as the kernels see them: tensors as slices.

use burn::{
    backend::{Backend, tensor::FloatTensor},
    tensor::Shape,
};

/// A backend whose f32 tensors lie in host memory.
pub(crate) trait HostBackend: Backend {
    /// A tensor's elements, row by row.
    type Values: AsRef<[f32]>;

    /// Looks at a tensor, copying it only if its elements are not in order already.
    fn values(tensor: FloatTensor<Self>) -> Self::Values;

    /// Makes a tensor of elements in order.
    fn tensor(values: Vec<f32>, shape: Shape) -> FloatTensor<Self>;
}

#[cfg(feature = "flex")]
mod flex {
    use burn::{
        backend::{Flex, flex::FlexTensor},
        tensor::{Shape, TensorData},
    };

    use super::HostBackend;

    pub(crate) struct Values(FlexTensor);

    impl AsRef<[f32]> for Values {
        fn as_ref(&self) -> &[f32] {
            self.0.storage()
        }
    }

    impl HostBackend for Flex {
        type Values = Values;

        fn values(tensor: FlexTensor) -> Values {
            Values(tensor.to_contiguous())
        }

        fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
            FlexTensor::from_data(TensorData::new(values, shape))
        }
    }
}

#[cfg(feature = "ndarray")]
mod ndarray {
    // burn-ndarray is deprecated in favour of burn-flex, and supported until it is gone.
    #![allow(deprecated)]

    use burn::{
        backend::{NdArray, ndarray::NdArrayTensor},
        tensor::{Shape, TensorData},
    };

    use super::HostBackend;

    /// A copy: the tensor's own storage cannot be borrowed without naming the array crate behind it.
    pub(crate) struct Values(Vec<f32>);

    impl AsRef<[f32]> for Values {
        fn as_ref(&self) -> &[f32] {
            &self.0
        }
    }

    impl HostBackend for NdArray {
        type Values = Values;

        fn values(tensor: NdArrayTensor) -> Values {
            let NdArrayTensor::F32(storage) = tensor else {
                unreachable!("the operation is only called on f32 tensors");
            };
            let view = storage.view();
            Values(view.as_slice().map_or_else(|| view.iter().copied().collect(), <[f32]>::to_vec))
        }

        fn tensor(values: Vec<f32>, shape: Shape) -> NdArrayTensor {
            NdArrayTensor::from_data(TensorData::new(values, shape))
        }
    }
}
