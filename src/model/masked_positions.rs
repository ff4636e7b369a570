//! The positions of a batch whose tokens are to be predicted.

use burn::{
    Tensor,
    tensor::{Device, Int, TensorData},
};

use crate::kernels::{QueryPositions, SequenceBounds, select_rows};

/// The masked positions of a batch, sequence by sequence. A tensor that has a row for each of them has the shape
/// [1, masked, ..], in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedPositions {
    /// The length of the padded batch.
    length: usize,
    queries: QueryPositions,
}

impl MaskedPositions {
    /// The positions of each sequence, in rising order, in a batch that is padded to `length` tokens.
    ///
    /// # Panics
    /// If the positions of a sequence do not rise, or one of them is not below `length`.
    pub fn new<P: AsRef<[usize]>>(length: usize, sequences: impl IntoIterator<Item = P>) -> Self {
        let (mut bounds, mut positions) = (Vec::new(), Vec::new());
        for masked in sequences {
            let masked = masked.as_ref();
            assert!(masked.is_sorted_by(|a, b| a < b), "masked positions that do not rise: {masked:?}");
            assert!(masked.last().is_none_or(|last| *last < length), "a position beyond {length} tokens: {masked:?}");
            bounds.push(SequenceBounds { start: positions.len(), length: masked.len() });
            positions.extend(masked.iter().map(|position| *position as u32));
        }
        Self { length, queries: QueryPositions { bounds: bounds.into(), positions: positions.into() } }
    }

    /// The number of masked positions in the batch.
    pub fn len(&self) -> usize {
        self.queries.positions.len()
    }

    /// Whether nothing is masked.
    pub fn is_empty(&self) -> bool {
        self.queries.positions.is_empty()
    }

    /// The positions as queries of an unpadded batch: counted from the first token of each sequence, which has `offsets` tokens
    /// of padding in front of it.
    pub(crate) fn counted_from_first_token(&self, offsets: &[usize]) -> QueryPositions {
        let bounds = self.queries.bounds.clone();
        let positions = bounds.iter().zip(offsets).flat_map(|(bounds, offset)| {
            self.queries.positions[bounds.rows()].iter().map(move |position| position - *offset as u32)
        });
        QueryPositions { positions: positions.collect(), bounds: bounds.clone() }
    }

    /// Whether these positions belong to a batch of this shape.
    pub(crate) fn fit(&self, [batch, length]: [usize; 2]) -> bool {
        (self.queries.bounds.len(), self.length) == (batch, length)
    }

    /// The positions as queries of a padded batch.
    pub(crate) fn queries(&self) -> &QueryPositions {
        &self.queries
    }

    /// For each sequence, the places of its positions among all.
    pub(crate) fn sequences(&self) -> Vec<Vec<usize>> {
        self.queries.bounds.iter().map(|bounds| bounds.rows().collect()).collect()
    }

    /// The position of each in its sequence, \[masked\].
    pub fn position_tensor(&self, device: &Device) -> Tensor<1, Int> {
        indices(self.queries.positions.iter().map(|position| *position as usize), device)
    }

    /// The row of each in a tensor [batch * length, ..], \[masked\].
    pub fn rows(&self, device: &Device) -> Tensor<1, Int> {
        let rows = self.queries.bounds.iter().enumerate().flat_map(|(sequence, bounds)| {
            let positions = self.queries.positions[bounds.rows()].iter();
            positions.map(move |position| sequence * self.length + *position as usize)
        });
        indices(rows, device)
    }

    /// The same in a rectangle, with as many slots for each sequence as the longest one needs.
    pub(crate) fn slots(&self, device: &Device) -> Slots {
        let QueryPositions { bounds, positions } = &self.queries;
        let most = bounds.iter().map(|bounds| bounds.length).max().unwrap_or(0);
        let filled = |bounds: &SequenceBounds| bounds.start..bounds.start + most;
        // A slot that its sequence does not need holds any masked position; its result is dropped again.
        let last = self.len().saturating_sub(1);
        let masked: Vec<usize> = bounds.iter().flat_map(filled).map(|index| index.min(last)).collect();
        let slots = bounds.iter().enumerate();
        let slots = slots.flat_map(|(sequence, bounds)| sequence * most..sequence * most + bounds.length);
        Slots {
            most,
            slots: indices(slots, device),
            positions: indices(masked.iter().map(|index| positions[*index] as usize), device),
            masked: indices(masked, device),
        }
    }
}

/// Masked positions in a rectangle of slots, [batch, most].
pub(crate) struct Slots {
    /// The largest number of masked positions in a sequence.
    pub most: usize,
    /// The slot of each masked position, \[masked\].
    pub slots: Tensor<1, Int>,
    /// Which masked position is in each slot, [batch * most].
    pub masked: Tensor<1, Int>,
    /// The position in its sequence of what is in each slot, [batch * most].
    pub positions: Tensor<1, Int>,
}

impl Slots {
    /// [1, masked, hidden] -> [batch, most, hidden]
    pub fn spread(&self, states: Tensor<3>, batch: usize) -> Tensor<3> {
        let hidden = states.dims()[2];
        select_rows(states.squeeze_dim(0), self.masked.clone()).reshape([batch, self.most, hidden])
    }

    /// [batch, most, hidden] -> [1, masked, hidden]
    pub fn collect(&self, states: Tensor<3>) -> Tensor<3> {
        select_rows(states.flatten(0, 1), self.slots.clone()).unsqueeze()
    }

    /// The rows of a table [positions, columns] that belong to the slots, [batch, 1, most, columns].
    pub fn rows_of(&self, table: Tensor<2, Int>, batch: usize) -> Tensor<4, Int> {
        let columns = table.dims()[1];
        table.select(0, self.positions.clone()).reshape([batch, 1, self.most, columns])
    }
}

/// A list of indices on the device.
pub(crate) fn indices(values: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}
