//! What the attention of every device is told beside its tensors.

use std::sync::Arc;

use crate::kernels::{QueryPositions, RelativeIndex, SequenceBounds, cpu::dropout::DropoutMask};

/// What an attention over sequences knows beside its tensors.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    pub heads: usize,
    pub scale: f64,
    pub sequences: Arc<[SequenceBounds]>,
    /// The positions of the queries, if not every token has one.
    pub queries: Option<QueryPositions>,
    /// The rows of each pair, where there are position terms.
    pub index: Option<Arc<RelativeIndex>>,
    /// The row of the position tables that the index counts from.
    pub first_row: usize,
    pub dropout: Option<DropoutMask>,
    /// Whether a CPU may round what it multiplies to bf16, if it is faster then.
    pub rounds: bool,
}
