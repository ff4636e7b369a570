//! What the kernels are told beside their tensors.

use burn::{
    backend::fusion::custom::TensorSpec,
    tensor::{DType, Shape},
};

use crate::{config::PositionTerms, kernels::AttentionPlan};

/// What the operation knows beside its tensors.
#[derive(Clone, Debug)]
pub struct Plan {
    pub terms: PositionTerms,
    pub attention: AttentionPlan,
}

impl Plan {
    /// The logarithms of the softmax's sums, [query_tokens, heads].
    pub(super) fn lse(&self, query: &TensorSpec) -> TensorSpec {
        let shape =
            Shape::new([query.shape.num_elements() / query.shape[query.shape.num_dims() - 1], self.attention.heads]);
        TensorSpec { shape, dtype: DType::F32 }
    }

    /// The gradient of a position term's scores: one element where it is not in use.
    pub(super) fn d_term(term: &TensorSpec, in_use: bool) -> TensorSpec {
        if in_use { term.clone() } else { TensorSpec { shape: Shape::new([1]), ..term.clone() } }
    }
}
