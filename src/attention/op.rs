//! The attention operation: one signature, whichever implementation serves it.
//!
//! [`composed`] is the definition. Faster kernels stand behind [`attend`], and [`can_fuse`] is the one place
//! that chooses among them.

use std::sync::{Arc, OnceLock};

use burn::{
    Tensor,
    tensor::{DType, Device, Int, TensorData},
};

use super::{
    PositionProjections, composed,
    cpu::Span,
    fused::{self, FusedPlan},
};
use crate::{device, dropout::Dropout, linear::Linear, packing::TokenLayout, places::Places, position::RelativeIndex};

/// Everything attention computes from.
pub struct AttentionOperands<'a> {
    /// Qc, [batch, length, hidden], or [1, places, hidden].
    pub query: Tensor<3>,
    /// Kc, [batch, length, hidden].
    pub key: Tensor<3>,
    /// Vc, [batch, length, hidden].
    pub value: Tensor<3>,
    /// Number of heads, side by side in hidden.
    pub heads: usize,
    /// The position terms, if there are any.
    pub relative: Option<RelativeOperands>,
    /// How the tokens lie in key and value, and in the query where there are no places. Only fused kernels take a packed layout.
    pub layout: &'a TokenLayout,
    /// The positions of the queries, if not every token has one.
    pub places: Option<&'a Places>,
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
    pub fn host(&self) -> &Arc<RelativeIndex> {
        &self.host
    }

    /// The whole index on the device, [query, key].
    pub fn table(&self) -> Tensor<2, Int> {
        let shape = [self.host.query_length(), self.host.key_length()];
        self.table.get_or_init(|| Tensor::from_data(TensorData::new(self.host.table(), shape), &self.device)).clone()
    }
}

/// Whether a fused kernel serves this device and element type. It does not serve talking heads or attention maps.
pub fn can_fuse(device: &Device, dtype: DType) -> bool {
    dtype == DType::F32 && device::is_host(device)
}

/// Computes the context, of the query's shape, and the probabilities [batch, heads, query, key] if `maps` asks for them. Rows
/// of padded queries are zero.
///
/// # Panics
/// On a packed layout that no fused kernel can serve.
pub fn attend(
    operands: AttentionOperands<'_>,
    talking_heads: Option<TalkingHeads<'_>>,
    maps: bool,
) -> (Tensor<3>, Option<Tensor<4>>) {
    let fused = can_fuse(&operands.query.device(), operands.query.dtype()) && talking_heads.is_none() && !maps;
    let mut places = operands.places.cloned();
    let spans = match operands.layout {
        TokenLayout::Packed(packing) => {
            assert!(fused, "a packed layout needs fused attention, without maps and talking heads");
            places = places.map(|places| places.counted_from_first_token(packing.offsets()));
            packing.spans().clone()
        }
        TokenLayout::Padded(None) if fused => {
            let [batch, length, _] = operands.key.dims();
            (0..batch).map(|sequence| Span { start: sequence * length, length }).collect()
        }
        TokenLayout::Padded(_) => {
            let (context, probabilities) = composed::attend(operands, talking_heads);
            return (context, maps.then_some(probabilities));
        }
    };
    let plan = FusedPlan {
        heads: operands.heads,
        scale: operands.scale,
        spans,
        places,
        index: operands.relative.as_ref().map(|relative| relative.index.host().clone()),
        first_row: operands.relative.as_ref().map_or(0, |relative| relative.positions.first_row),
        dropout: operands.dropout.mask(&operands.query.device()),
    };
    let positions = operands.relative.map(|relative| relative.positions);
    let (position_key, position_query) = positions.map_or((None, None), |tables| (tables.key, tables.query));
    (fused::attend(operands.query, operands.key, operands.value, position_key, position_query, plan), None)
}
