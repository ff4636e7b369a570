//! Models made ready for inference: what depends on weights alone is computed once.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;

use crate::{attention::PositionProjections, heads::Head, input::ModelInput, linear::Linear};

/// The projected position table of every layer: Kr and Qr depend on weights alone, and for short texts cost as much as the
/// rest.
#[derive(Clone, Debug)]
pub struct PreparedPositions {
    /// Kr and Qr by layer.
    pub(crate) layers: Arc<[PositionProjections]>,
    /// The row of the position table that their first row is.
    pub(crate) first_row: usize,
    /// The longest input, in tokens, for which they have every row.
    pub(crate) length: usize,
}

/// A model made ready for inference: its position tables are projected once and not for each input, and on a CPU its weights
/// are laid out for products once.
///
/// It owns the model and never hands it out to be changed, so that neither can go stale; [`into_inner`](Self::into_inner) gives
/// the model back as it was. The tables are made when first needed, and again when a text is more than twice as long as all
/// before. While a weight is laid out, the parameter that it came from is empty. On a device with gradients nothing is
/// prepared.
pub struct Prepared<H> {
    head: H,
    positions: Mutex<Option<PreparedPositions>>,
}

impl<H: Head> Prepared<H> {
    /// Takes the model.
    pub fn new(mut head: H) -> Self {
        head.linears().into_par_iter().for_each(Linear::pack);
        Self { head, positions: Mutex::default() }
    }

    /// Adds the tables to an input for one of the model's own methods.
    pub(crate) fn prepare(&self, input: ModelInput) -> ModelInput {
        let [_, length] = input.input_ids.dims();
        if input.input_ids.device().is_autodiff() {
            // Dropout and gradients want the tables made anew.
            return input;
        }
        // The tables are replaced whole, so that a thread that panicked leaves none half made.
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if positions.as_ref().is_none_or(|tables| tables.length < length) {
            *positions = self.head.prepare_positions(length.next_power_of_two());
        }
        ModelInput { positions: positions.clone(), ..input }
    }

    /// The model, to be changed.
    pub fn into_inner(mut self) -> H {
        self.head.linears().into_par_iter().for_each(Linear::unpack);
        self.head
    }
}

impl<H> Deref for Prepared<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.head
    }
}

impl<H: Head> Head for Prepared<H> {
    type Output = H::Output;

    fn forward(&self, input: ModelInput) -> H::Output {
        self.head.forward(self.prepare(input))
    }

    /// None: they are laid out already.
    fn linears(&mut self) -> Vec<&mut Linear> {
        Vec::new()
    }
}
