//! Any number of tensors as one argument of an operation: what burn's macros derive for structs of tensors, for a list of them.

use std::vec::IntoIter;

use burn::{
    Tensor,
    backend::{
        Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, ExtensionType,
        fusion::{
            ExecutionError, Fusion, FusionBackend, FusionRuntime, FusionTensor,
            custom::{
                ExtensionMetadata, Float, FusionValueAdapter, HandleContainer, OutputTensor, TensorId, TensorIr,
                TensorSpec,
            },
        },
        tensor::{Device, FloatTensor},
    },
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;

/// The most items of a list that a kernel takes: each is a branch in its code.
pub(super) const MOST: usize = 16;

/// Buffers that a kernel may have beside those of its lists.
const OTHERS: usize = 4;

/// Items of a list, of so many tensors each, that one launch takes.
pub(super) fn items_at_once(client: &Client, tensors: usize) -> usize {
    let bindings = client.properties().hardware.max_bindings as usize;
    (bindings.saturating_sub(OTHERS) / tensors).clamp(1, MOST)
}

/// Numbers that a unit may read at once, whichever of the tensors they are of.
pub(super) fn numbers_at_once<'a>(mut tensors: impl Iterator<Item = &'a CubeTensor>) -> usize {
    if tensors.all(|tensor| tensor.meta.num_elements().is_multiple_of(4)) { 4 } else { 1 }
}

/// Where each of the tensors ends if they lie end to end, in units of some numbers.
pub(super) fn ends<'a>(tensors: impl Iterator<Item = &'a CubeTensor>, numbers: usize) -> Vec<usize> {
    let counts = tensors.map(|tensor| tensor.meta.num_elements() / numbers);
    counts
        .scan(0, |end, count| {
            *end += count;
            Some(*end)
        })
        .collect()
}

/// Tensors of one device.
pub struct Many<B: Backend>(pub Vec<FloatTensor<B>>);

impl Many<Dispatch> {
    /// Of flat tensors.
    pub fn of(tensors: impl IntoIterator<Item = Tensor<1>>) -> Self {
        Self(tensors.into_iter().map(Tensor::into_dispatch).collect())
    }

    /// The tensors again.
    pub fn tensors(self) -> impl Iterator<Item = Tensor<1>> {
        self.0.into_iter().map(Tensor::from_dispatch)
    }
}

impl<B: Backend> ExtensionType<B> for Many<B> {
    type Target = Many<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let mapped = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Many(self.0.into_iter().map(mapped).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        target.0.iter().fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff))
    }
}

impl<B: Backend> ExtensionMetadata for Many<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
}

/// What has the results of operations that were put off.
type Handles<B> = HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;

impl<B: FusionBackend> FusionValueAdapter<B> for Many<B> {
    type Metadata = Vec<TensorSpec>;
    type Input = Vec<TensorIr>;
    type Output = Vec<OutputTensor>;
    type Inner = Self;
    type Fused = Many<Fusion<B>>;

    fn to_metadata(value: &Self::Fused) -> Self::Metadata {
        value.0.iter().map(<Float as FusionValueAdapter<B>>::to_metadata).collect()
    }

    fn visit_fused_tensors(value: &Self::Fused, visit: &mut impl FnMut(&FusionTensor<B::FusionRuntime>)) {
        value.0.iter().for_each(visit);
    }

    fn tensor_count(meta: &Self::Metadata) -> usize {
        meta.len()
    }

    fn append_input_ir(value: Self::Fused, inputs: &mut Vec<TensorIr>) -> Self::Input {
        value.0.into_iter().map(|tensor| <Float as FusionValueAdapter<B>>::append_input_ir(tensor, inputs)).collect()
    }

    fn resolve_inputs(input: &Self::Input, handles: &mut Handles<B>) -> Self::Inner {
        Self(input.iter().map(|input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles)).collect())
    }

    fn append_output_ir(
        meta: &Self::Metadata,
        out: &mut Vec<TensorIr>,
        create: &mut impl FnMut() -> TensorId,
    ) -> Self::Output {
        meta.iter().map(|meta| <Float as FusionValueAdapter<B>>::append_output_ir(meta, out, create)).collect()
    }

    fn validate_outputs(
        value: &Self::Inner,
        output: &Self::Output,
        device: Option<&Device<B>>,
    ) -> Result<(), ExecutionError> {
        if value.0.len() != output.len() {
            let message = format!("expected {} tensors, got {}", output.len(), value.0.len());
            return Err(ExecutionError::generic(message));
        }
        let mut pairs = value.0.iter().zip(output);
        pairs.try_for_each(|(value, output)| <Float as FusionValueAdapter<B>>::validate_outputs(value, output, device))
    }

    fn register_output_handles(value: Self::Inner, output: &Self::Output, handles: &mut Handles<B>) {
        for (value, output) in value.0.into_iter().zip(output) {
            <Float as FusionValueAdapter<B>>::register_output_handles(value, output, handles);
        }
    }

    fn build_fused_output(
        meta: &Self::Metadata,
        tensors: &mut IntoIter<FusionTensor<B::FusionRuntime>>,
    ) -> Self::Fused {
        Many(meta.iter().map(|meta| <Float as FusionValueAdapter<B>>::build_fused_output(meta, tensors)).collect())
    }
}
