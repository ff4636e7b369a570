//! Some positions of each sequence of a batch: where words are to be guessed.

use std::sync::Arc;

use burn::{
    Tensor,
    tensor::{Device, Int, TensorData},
};

use crate::attention::Span;

/// Positions of a batch's sequences, sequence by sequence. States "at the places" are [1, places, hidden], in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    length: usize,
    spans: Arc<[Span]>,
    positions: Arc<[u32]>,
}

impl Places {
    /// Positions in rising order for each sequence of a batch that is padded to `length` tokens.
    ///
    /// # Panics
    /// If positions do not rise, or one is not below `length`.
    pub fn new<P: AsRef<[usize]>>(length: usize, sequences: impl IntoIterator<Item = P>) -> Self {
        let (mut spans, mut positions) = (Vec::new(), Vec::new());
        for places in sequences {
            let places = places.as_ref();
            assert!(places.is_sorted_by(|a, b| a < b), "places that do not rise: {places:?}");
            assert!(places.last().is_none_or(|last| *last < length), "a place beyond {length} tokens: {places:?}");
            spans.push(Span { start: positions.len(), length: places.len() });
            positions.extend(places.iter().map(|place| *place as u32));
        }
        Self { length, spans: spans.into(), positions: positions.into() }
    }

    /// The number of places.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The same places counted from the first token of each sequence, where there are so many tokens of padding in front of it.
    pub(crate) fn counted_from_first_token(&self, offsets: &[usize]) -> Self {
        let positions = self.spans.iter().zip(offsets).flat_map(|(span, offset)| {
            let positions = &self.positions[span.start..span.start + span.length];
            positions.iter().map(move |position| position - *offset as u32)
        });
        Self { positions: positions.collect(), ..self.clone() }
    }

    /// Whether the places are those of a batch of this shape.
    pub(crate) fn fit(&self, [batch, length]: [usize; 2]) -> bool {
        (self.spans.len(), self.length) == (batch, length)
    }

    /// The run of places that each sequence has.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The position of each place in its sequence.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The positions on a device, \[places\].
    pub fn position_tensor(&self, device: &Device) -> Tensor<1, Int> {
        indices(self.positions.iter().map(|position| *position as usize), device)
    }

    /// Where the places are in [batch * length], \[places\].
    pub fn rows(&self, device: &Device) -> Tensor<1, Int> {
        let rows = self.spans.iter().enumerate().flat_map(|(sequence, span)| {
            let positions = &self.positions[span.start..span.start + span.length];
            positions.iter().map(move |position| sequence * self.length + *position as usize)
        });
        indices(rows, device)
    }

    /// The same with as many slots for each sequence, for tensors that want a rectangle.
    pub(crate) fn slots(&self, device: &Device) -> Slots {
        let most = self.spans.iter().map(|span| span.length).max().unwrap_or(0);
        let filled = |span: &Span| span.start..span.start + most;
        // A slot beyond a sequence's places repeats the last of all; nobody reads what comes of it.
        let last = self.len().saturating_sub(1);
        let places: Vec<usize> = self.spans.iter().flat_map(filled).map(|place| place.min(last)).collect();
        let slots = self.spans.iter().enumerate();
        let slots = slots.flat_map(|(sequence, span)| sequence * most..sequence * most + span.length);
        Slots {
            most,
            slots: indices(slots, device),
            positions: indices(places.iter().map(|place| self.positions[*place] as usize), device),
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
