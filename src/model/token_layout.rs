//! Sequences without their padding: the tokens of a batch, end to end.
//!
//! Everything between embeddings and heads but attention and convolution treats each token by itself, and the CPU's attention
//! takes sequences as runs of rows. So there, a ragged batch [batch, length, ..] becomes [1, tokens, ..] and costs what its
//! tokens cost.

use std::sync::Arc;

use burn::{
    Tensor,
    tensor::{Bool, Int},
};

use crate::{
    kernels::SequenceBounds,
    model::masked_positions::{Places, indices},
};

/// Where the tokens of a padded batch go, and come from.
#[derive(Clone, Debug)]
pub struct Packing {
    sequences: Arc<[SequenceBounds]>,
    /// Tokens of padding in front of each sequence.
    offsets: Arc<[usize]>,
    /// The row of each token in [batch * length].
    rows: Tensor<1, Int>,
    /// The token of each row in [batch * length]; any, where it is padding.
    tokens: Tensor<1, Int>,
    /// The position of each token in its sequence.
    positions: Tensor<1, Int>,
    mask: Tensor<2, Bool>,
}

impl Packing {
    /// The packing of a batch with this mask, [batch, length]. None if padding interrupts a sequence, which attention then has
    /// to mask, or if there is no token at all.
    pub fn new(mask: &Tensor<2, Bool>) -> Option<Self> {
        let ([_, length], device) = (mask.dims(), mask.device());
        let real = mask.clone().try_into_data().ok()?.try_to_vec::<bool>().ok()?;
        let (mut sequences, mut offsets) = (Vec::new(), Vec::new());
        let (mut rows, mut tokens, mut positions) = (Vec::new(), vec![0; real.len()], Vec::new());
        for (sequence, real) in real.chunks(length).enumerate() {
            let first = real.iter().position(|token| *token).unwrap_or(0);
            let count = real[first..].iter().take_while(|token| **token).count();
            if real[first + count..].contains(&true) {
                return None;
            }
            sequences.push(SequenceBounds { start: rows.len(), length: count });
            offsets.push(first);
            for position in first..first + count {
                let row = sequence * length + position;
                tokens[row] = rows.len();
                rows.push(row);
                positions.push(position);
            }
        }
        (!rows.is_empty()).then(|| Self {
            sequences: sequences.into(),
            offsets: offsets.into(),
            rows: indices(rows, &device),
            tokens: indices(tokens, &device),
            positions: indices(positions, &device),
            mask: mask.clone(),
        })
    }

    /// The sequences, as runs of tokens.
    pub fn sequences(&self) -> &Arc<[SequenceBounds]> {
        &self.sequences
    }

    /// Tokens of padding in front of each sequence.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The length of the padded batch.
    pub fn length(&self) -> usize {
        self.mask.dims()[1]
    }

    /// The position of each token in its padded row, \[tokens\].
    pub fn positions(&self) -> Tensor<1, Int> {
        self.positions.clone()
    }

    /// [batch, length] -> [1, tokens]
    pub fn pack_ids(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        ids.flatten::<1>(0, 1).select(0, self.rows.clone()).unsqueeze()
    }

    /// [batch, length, hidden] -> [1, tokens, hidden]
    pub fn pack(&self, states: Tensor<3>) -> Tensor<3> {
        states.flatten::<2>(0, 1).select(0, self.rows.clone()).unsqueeze()
    }

    /// [1, tokens, hidden] -> [batch, length, hidden], zero at padding.
    pub fn unpack(&self, states: Tensor<3>) -> Tensor<3> {
        let ([batch, length], [_, _, hidden]) = (self.mask.dims(), states.dims());
        let rows = states.squeeze_dim::<2>(0).select(0, self.tokens.clone());
        let padding = self.mask.clone().bool_not().unsqueeze_dim::<3>(2);
        rows.reshape([batch, length, hidden]).mask_fill(padding, 0.0)
    }
}

/// How the tokens of a batch lie in its tensors.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub enum TokenLayout {
    /// A row a sequence, [batch, length]; the mask is true at tokens, and absent where nothing is padded.
    Padded(Option<Tensor<2, Bool>>),
    /// One row of all tokens, [1, tokens].
    Packed(Arc<Packing>),
}

impl TokenLayout {
    /// The mask of a padded layout that pads.
    pub fn mask(&self) -> Option<&Tensor<2, Bool>> {
        match self {
            Self::Padded(mask) => mask.as_ref(),
            Self::Packed(_) => None,
        }
    }

    /// [batch, length] -> this layout
    pub fn arrange_ids(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        match self {
            Self::Padded(_) => ids,
            Self::Packed(packing) => packing.pack_ids(ids),
        }
    }

    /// This layout -> [batch, length, hidden]
    pub fn restore(&self, states: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Padded(_) => states,
            Self::Packed(packing) => packing.unpack(states),
        }
    }

    /// The states of this layout at some places, [1, places, hidden].
    pub fn select(&self, states: Tensor<3>, places: &Places) -> Tensor<3> {
        let rows = places.rows(&states.device());
        let rows = match self {
            Self::Padded(_) => rows,
            Self::Packed(packing) => packing.tokens.clone().select(0, rows),
        };
        states.flatten::<2>(0, 1).select(0, rows).unsqueeze()
    }

    /// The rows of a table of absolute positions, [positions, hidden], for the tokens of `states`, in a shape that can be
    /// added to them.
    pub fn absolute_positions(&self, table: Tensor<2>, states: &Tensor<3>) -> Tensor<3> {
        match self {
            Self::Padded(_) => table.narrow(0, 0, states.dims()[1]).unsqueeze(),
            Self::Packed(packing) => table.select(0, packing.positions()).unsqueeze(),
        }
    }

    /// Sets the vectors at padding to zero, [batch, length, hidden].
    pub fn zero_padding(&self, states: Tensor<3>) -> Tensor<3> {
        match self.mask() {
            Some(mask) => states.mask_fill(mask.clone().bool_not().unsqueeze_dim(2), 0.0),
            None => states,
        }
    }
}
