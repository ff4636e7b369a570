//! Some positions of each sequence of a batch: where words are to be guessed.

use burn::{
    Tensor,
    tensor::{Device, Int, TensorData},
};

use crate::kernels::{QueryPositions, SequenceBounds};

/// Positions of a batch's sequences, sequence by sequence. States "at the places" are [1, places, hidden], in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Of the padded batch.
    length: usize,
    queries: QueryPositions,
}

impl Places {
    /// Positions in rising order for each sequence of a batch that is padded to `length` tokens.
    ///
    /// # Panics
    /// If positions do not rise, or one is not below `length`.
    pub fn new<P: AsRef<[usize]>>(length: usize, sequences: impl IntoIterator<Item = P>) -> Self {
        let (mut bounds, mut positions) = (Vec::new(), Vec::new());
        for places in sequences {
            let places = places.as_ref();
            assert!(places.is_sorted_by(|a, b| a < b), "places that do not rise: {places:?}");
            assert!(places.last().is_none_or(|last| *last < length), "a place beyond {length} tokens: {places:?}");
            bounds.push(SequenceBounds { start: positions.len(), length: places.len() });
            positions.extend(places.iter().map(|place| *place as u32));
        }
        Self { length, queries: QueryPositions { bounds: bounds.into(), positions: positions.into() } }
    }

    /// The number of places.
    pub fn len(&self) -> usize {
        self.queries.positions.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.queries.positions.is_empty()
    }

    /// The same places counted from the first token of each sequence, where there are so many tokens of padding in front of it.
    pub(crate) fn counted_from_first_token(&self, offsets: &[usize]) -> QueryPositions {
        let bounds = self.queries.bounds.clone();
        let positions = bounds.iter().zip(offsets).flat_map(|(bounds, offset)| {
            self.queries.positions[bounds.rows()].iter().map(move |position| position - *offset as u32)
        });
        QueryPositions { positions: positions.collect(), bounds: bounds.clone() }
    }

    /// Whether the places are those of a batch of this shape.
    pub(crate) fn fit(&self, [batch, length]: [usize; 2]) -> bool {
        (self.queries.bounds.len(), self.length) == (batch, length)
    }

    /// The places as the queries of an attention.
    pub(crate) fn queries(&self) -> &QueryPositions {
        &self.queries
    }

    /// The positions on a device, \[places\].
    pub fn position_tensor(&self, device: &Device) -> Tensor<1, Int> {
        indices(self.queries.positions.iter().map(|position| *position as usize), device)
    }

    /// Where the places are in [batch * length], \[places\].
    pub fn rows(&self, device: &Device) -> Tensor<1, Int> {
        let rows = self.queries.bounds.iter().enumerate().flat_map(|(sequence, bounds)| {
            let positions = self.queries.positions[bounds.rows()].iter();
            positions.map(move |position| sequence * self.length + *position as usize)
        });
        indices(rows, device)
    }

    /// The same with as many slots for each sequence, for tensors that want a rectangle.
    pub(crate) fn slots(&self, device: &Device) -> Slots {
        let QueryPositions { bounds, positions } = &self.queries;
        let most = bounds.iter().map(|bounds| bounds.length).max().unwrap_or(0);
        let filled = |bounds: &SequenceBounds| bounds.start..bounds.start + most;
        // A slot beyond a sequence's places repeats the last of all; nobody reads what comes of it.
        let last = self.len().saturating_sub(1);
        let places: Vec<usize> = bounds.iter().flat_map(filled).map(|place| place.min(last)).collect();
        let slots = bounds.iter().enumerate();
        let slots = slots.flat_map(|(sequence, bounds)| sequence * most..sequence * most + bounds.length);
        Slots {
            most,
            slots: indices(slots, device),
            positions: indices(places.iter().map(|place| positions[*place] as usize), device),
            places: indices(places, device),
        }
    }
}

/// Places in a rectangle of [batch, most].
pub(crate) struct Slots {
    /// The most places that a sequence has.
    pub most: usize,
    /// The slot of each place, \[places\].
    pub slots: Tensor<1, Int>,
    /// The place of each slot, [batch * most].
    pub places: Tensor<1, Int>,
    /// The position of each slot, [batch * most].
    pub positions: Tensor<1, Int>,
}

impl Slots {
    /// [1, places, hidden] -> [batch, most, hidden]
    pub fn spread(&self, states: Tensor<3>, batch: usize) -> Tensor<3> {
        let hidden = states.dims()[2];
        states.squeeze_dim::<2>(0).select(0, self.places.clone()).reshape([batch, self.most, hidden])
    }

    /// [batch, most, hidden] -> [1, places, hidden]
    pub fn collect(&self, states: Tensor<3>) -> Tensor<3> {
        states.flatten::<2>(0, 1).select(0, self.slots.clone()).unsqueeze()
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
