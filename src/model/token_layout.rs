//! Batches with and without padding.
//!
//! Between embeddings and heads, only attention and convolution look at more than one token at a time. The attention kernels of
//! the devices take sequences that lie end to end, so a padded batch [batch, length, ..] is turned into its tokens alone,
//! [1, tokens, ..], and padding costs nothing.

use std::sync::Arc;

use burn::{
    Tensor,
    tensor::{Bool, Int},
};

use crate::{
    kernels::{SequenceBounds, select_rows},
    model::{
        AttentionMask,
        masked_positions::{MaskedPositions, indices},
    },
};

/// How to take the padding out of a batch and put it back.
#[derive(Clone, Debug)]
pub struct Unpadding {
    /// Where each sequence lies among the tokens.
    bounds: Arc<[SequenceBounds]>,
    /// The number of padding tokens in front of each sequence.
    offsets: Arc<[usize]>,
    /// For each token, its row in the padded [batch * length].
    rows: Tensor<1, Int>,
    /// For each row of the padded [batch * length], its token; any token where the row is padding.
    tokens: Tensor<1, Int>,
    /// For each token, its position in the padded sequence.
    positions: Tensor<1, Int>,
    /// True at tokens, [batch, length].
    mask: AttentionMask,
}

impl Unpadding {
    /// For a batch with this mask. None if there is padding inside a sequence, which only a mask can express, no token at all, or
    /// if the mask cannot be read from the device.
    pub fn new(mask: &AttentionMask) -> Option<Self> {
        let ([_, length], device) = (mask.tensor().dims(), mask.tensor().device());
        let real = mask.real().ok()?;
        let (mut bounds, mut offsets) = (Vec::new(), Vec::new());
        let (mut rows, mut tokens, mut positions) = (Vec::new(), vec![0; real.len()], Vec::new());
        for (sequence, real) in real.chunks(length).enumerate() {
            let first = real.iter().position(|token| *token).unwrap_or(0);
            let count = real[first..].iter().take_while(|token| **token).count();
            if real[first + count..].contains(&true) {
                return None;
            }
            bounds.push(SequenceBounds { start: rows.len(), length: count });
            offsets.push(first);
            for position in first..first + count {
                let row = sequence * length + position;
                tokens[row] = rows.len();
                rows.push(row);
                positions.push(position);
            }
        }
        // Padding gets a token each, so that no token's gradient is a sum over all of it, slow though it is zero.
        let padding = (0..real.len()).filter(|row| !real[*row]);
        padding.for_each(|row| tokens[row] = row % rows.len().max(1));
        (!rows.is_empty()).then(|| Self {
            bounds: bounds.into(),
            offsets: offsets.into(),
            rows: indices(rows, &device),
            tokens: indices(tokens, &device),
            positions: indices(positions, &device),
            mask: mask.clone(),
        })
    }

    /// Where each sequence lies among the tokens.
    pub fn sequence_bounds(&self) -> &Arc<[SequenceBounds]> {
        &self.bounds
    }

    /// The number of padding tokens in front of each sequence.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The length of the padded batch.
    pub fn length(&self) -> usize {
        self.mask.tensor().dims()[1]
    }

    /// The position of each token in its padded sequence, \[tokens\].
    pub fn positions(&self) -> Tensor<1, Int> {
        self.positions.clone()
    }

    /// [batch, length] -> [1, tokens]
    pub fn unpad_ids(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        ids.flatten::<1>(0, 1).select(0, self.rows.clone()).unsqueeze()
    }

    /// [batch, length, hidden] -> [1, tokens, hidden]
    pub fn unpad(&self, states: Tensor<3>) -> Tensor<3> {
        select_rows(states.flatten(0, 1), self.rows.clone()).unsqueeze()
    }

    /// [1, tokens, hidden] -> [batch, length, hidden], zero at padding.
    pub fn pad(&self, states: Tensor<3>) -> Tensor<3> {
        let ([batch, length], [_, _, hidden]) = (self.mask.tensor().dims(), states.dims());
        let rows = select_rows(states.squeeze_dim(0), self.tokens.clone());
        let padding = self.mask.tensor().clone().bool_not().unsqueeze_dim::<3>(2);
        rows.reshape([batch, length, hidden]).mask_fill(padding, 0.0)
    }
}

/// Whether the tensors of a batch hold its padding.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a forward pass")]
pub enum TokenLayout {
    /// They do: [batch, length, ..]. The mask is true at tokens; there is none if nothing is padded.
    Padded(Option<AttentionMask>),
    /// They hold the tokens alone, sequence after sequence: [1, tokens, ..].
    Unpadded(Arc<Unpadding>),
}

impl TokenLayout {
    /// The mask, if there is padding in the tensors.
    pub fn mask(&self) -> Option<&Tensor<2, Bool>> {
        match self {
            Self::Padded(mask) => mask.as_ref().map(AttentionMask::tensor),
            Self::Unpadded(_) => None,
        }
    }

    /// For each sequence, the rows of its tokens in states [batch, length, ..] of this layout, flattened to [rows, ..].
    ///
    /// # Panics
    /// If a mask that only the device knows cannot be read from it.
    pub fn sequences(&self, [batch, length]: [usize; 2]) -> Vec<Vec<usize>> {
        let rows = |sequence: usize| sequence * length..(sequence + 1) * length;
        match self {
            Self::Padded(None) => (0..batch).map(|sequence| rows(sequence).collect()).collect(),
            Self::Padded(Some(mask)) => {
                let real = mask.real().expect("a device that computes can be read");
                (0..batch).map(|sequence| rows(sequence).filter(|row| real[*row]).collect()).collect()
            }
            Self::Unpadded(unpadding) => unpadding.bounds.iter().map(|bounds| bounds.rows().collect()).collect(),
        }
    }

    /// [batch, length] -> this layout
    pub fn arrange_ids(&self, ids: Tensor<2, Int>) -> Tensor<2, Int> {
        match self {
            Self::Padded(_) => ids,
            Self::Unpadded(unpadding) => unpadding.unpad_ids(ids),
        }
    }

    /// This layout -> [batch, length, hidden]
    pub fn restore(&self, states: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Padded(_) => states,
            Self::Unpadded(unpadding) => unpadding.pad(states),
        }
    }

    /// The states at the masked positions, [1, masked, hidden].
    pub fn select(&self, states: Tensor<3>, masked: &MaskedPositions) -> Tensor<3> {
        let rows = masked.rows(&states.device());
        let rows = match self {
            Self::Padded(_) => rows,
            Self::Unpadded(unpadding) => unpadding.tokens.clone().select(0, rows),
        };
        select_rows(states.flatten(0, 1), rows).unsqueeze()
    }

    /// For each token of `states`, its row of a table of absolute positions, [positions, hidden]; the result can be added to
    /// `states`.
    pub fn absolute_positions(&self, table: Tensor<2>, states: &Tensor<3>) -> Tensor<3> {
        match self {
            Self::Padded(_) => table.narrow(0, 0, states.dims()[1]).unsqueeze(),
            Self::Unpadded(unpadding) => select_rows(table, unpadding.positions()).unsqueeze(),
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
