//! The attention operation: one signature, whichever implementation serves it.
//!
//! [`composed`](super::composed) is the definition. Faster kernels stand behind [`attend`], which is the one place that
//! chooses among them.

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    nn::{Dropout, Linear},
    tensor::{Bool, Device, Int, TensorData},
};

use super::{PositionProjections, composed};
use crate::position::RelativeIndex;

/// Everything attention computes from.
pub struct AttentionOperands<'a> {
    /// Qc, [batch, heads, query, head_size].
    pub query: Tensor<4>,
    /// Kc, [batch, heads, key, head_size].
    pub key: Tensor<4>,
    /// Vc, [batch, heads, key, head_size].
    pub value: Tensor<4>,
    /// The position terms, if there are any.
    pub relative: Option<RelativeOperands>,
    /// Real tokens are true, [batch, length], for queries and keys alike.
    pub mask: Option<Tensor<2, Bool>>,
    /// Factor of every term, 1 / sqrt(d n).
    pub scale: f64,
    /// Dropout of the probabilities.
    pub dropout: &'a Dropout,
}

/// Kr and Qr, and which of their rows belongs to which pair.
pub struct RelativeOperands {
    /// The projected position table.
    pub positions: PositionProjections,
    /// The row of each pair of a query and a key.
    pub index: PositionIndex,
}

/// Linear maps across the heads (v1's `talking_head`), which only the composed implementation serves.
#[derive(Clone, Copy)]
pub struct TalkingHeads<'a> {
    /// Mixes the scores before the softmax.
    pub logits: &'a Linear,
    /// Mixes the probabilities after it.
    pub weights: &'a Linear,
}

/// A [`RelativeIndex`] that all layers share; its table goes to the device once, when the first of them asks.
#[derive(Clone, Debug)]
pub struct PositionIndex {
    host: Arc<RelativeIndex>,
    device: Device,
    table: Arc<OnceLock<Tensor<2, Int>>>,
}

impl PositionIndex {
    /// Wraps an index for use on `device`.
    pub fn new(index: RelativeIndex, device: &Device) -> Self {
        Self { host: Arc::new(index), device: device.clone(), table: Arc::default() }
    }

    /// The index on the host.
    pub fn host(&self) -> &RelativeIndex {
        &self.host
    }

    /// The whole index on the device, [query, key].
    pub fn table(&self) -> Tensor<2, Int> {
        let shape = [self.host.query_length(), self.host.key_length()];
        self.table.get_or_init(|| Tensor::from_data(TensorData::new(self.host.table(), shape), &self.device)).clone()
    }
}

/// Computes context [batch, heads, query, head_size], and the probabilities [batch, heads, query, key] if `maps` asks for
/// them. Rows of padded queries are zero.
pub fn attend(
    operands: AttentionOperands<'_>,
    talking_heads: Option<TalkingHeads<'_>>,
    maps: bool,
) -> (Tensor<4>, Option<Tensor<4>>) {
    let (context, probabilities) = composed::attend(operands, talking_heads);
    (context, maps.then_some(probabilities))
}
