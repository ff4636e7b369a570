//! Models made ready for inference: what depends on weights alone is computed once.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{Backbone, attention::PreparedPositions, input::ModelInput, linear::Linear};

/// A model that [`Prepared`] can make ready for inference, with a head or without.
pub trait InferenceModel: Send + Sync {
    /// What it computes: logits of some shape, or hidden states.
    type Output;

    /// Runs the model.
    fn forward(&self, input: ModelInput) -> Self::Output;

    /// The model below the head.
    fn backbone(&self) -> &Backbone;

    /// The same, to be changed.
    fn backbone_mut(&mut self) -> &mut Backbone;
}

/// A model made ready for inference: its position tables are projected once and not for each input, and on a CPU its weights
/// are laid out for products once.
///
/// It owns the model and hands it out neither to be changed, so that nothing can go stale, nor to be looked at, because the
/// parameters of weights that are laid out are empty; [`into_inner`](Self::into_inner) gives the model back as it was. The
/// tables are made when first needed, and again when a text is more than twice as long as all before. On a device with
/// gradients nothing is prepared.
pub struct Prepared<M> {
    model: M,
    positions: Mutex<Option<PreparedPositions>>,
}

impl<M: InferenceModel> Prepared<M> {
    /// Takes the model.
    pub fn new(mut model: M) -> Self {
        model.backbone_mut().linears().into_par_iter().for_each(Linear::pack);
        Self { model, positions: Mutex::default() }
    }

    /// Runs the model.
    pub fn forward(&self, input: ModelInput) -> M::Output {
        self.run(input, M::forward)
    }

    /// The model, whose weights may be laid out: for what does not depend on them.
    pub(crate) fn model(&self) -> &M {
        &self.model
    }

    /// Runs one of the model's own methods on an input, with the tables added.
    pub(crate) fn run<T>(&self, input: ModelInput, method: impl FnOnce(&M, ModelInput) -> T) -> T {
        method(&self.model, self.prepare(input))
    }

    fn prepare(&self, input: ModelInput) -> ModelInput {
        let [_, length] = input.input_ids.dims();
        if input.input_ids.device().is_autodiff() {
            // Dropout and gradients want the tables made anew.
            return input;
        }
        // The tables are replaced whole, so that a thread that panicked leaves none half made.
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if positions.as_ref().is_none_or(|tables| tables.length < length) {
            *positions = self.model.backbone().prepare_positions(length.next_power_of_two());
        }
        ModelInput { positions: positions.clone(), ..input }
    }

    /// The model, to be changed.
    pub fn into_inner(mut self) -> M {
        self.model.backbone_mut().linears().into_par_iter().for_each(Linear::unpack);
        self.model
    }
}
