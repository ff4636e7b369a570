//! What attention computes from: the one signature that every implementation serves.

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    tensor::{Device, Int, TensorData},
};

use super::PositionProjections;
use crate::{
    kernels::RelativeIndex,
    model::{dropout::Dropout, linear::Linear, masked_positions::MaskedPositions, token_layout::TokenLayout},
};

/// Everything attention computes from.
pub struct AttentionOperands<'a> {
    /// Qc, [batch, length, hidden], or [1, queries, hidden].
    pub query: Tensor<3>,
    /// Kc, [batch, length, hidden].
    pub key: Tensor<3>,
    /// Vc, [batch, length, hidden].
    pub value: Tensor<3>,
    /// Number of heads, side by side in hidden.
    pub heads: usize,
    /// The position terms, if there are any.
    pub relative: Option<RelativeOperands>,
    /// The layout of key and value, and of the query if it has no positions of its own. Only fused kernels take an unpadded one.
    pub layout: &'a TokenLayout,
    /// The positions of the queries, if not every token has one.
    pub query_positions: Option<&'a MaskedPositions>,
    /// Factor of every term, 1 / sqrt(d n).
    pub scale: f64,
    /// Dropout of the probabilities.
    pub dropout: &'a Dropout,
    /// Whether a CPU may round what it multiplies to bf16, where it is faster then.
    pub rounds: bool,
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
    pub fn host(&self) -> &Arc<RelativeIndex> {
        &self.host
    }

    /// The whole index on the device, [query, key].
    pub fn table(&self) -> Tensor<2, Int> {
        let shape = [self.host.query_length(), self.host.key_length()];
        self.table.get_or_init(|| Tensor::from_data(TensorData::new(self.host.table(), shape), &self.device)).clone()
    }
}
