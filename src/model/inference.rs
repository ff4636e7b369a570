//! Models made ready for inference: what depends on weights alone is computed once.

use std::sync::{Mutex, PoisonError};

use burn::tensor::DType;
use rayon::prelude::*;

use super::{Backbone, Precision, attention::PreparedPositions, input::ModelInput};
use crate::{Error, Result, device, isa::Isa};

/// A model that [`Prepared`] can make ready for inference, with a head or without.
pub trait InferenceModel: Send + Sync {
    /// What it computes: logits of some shape, or hidden states.
    type Output: Send;

    /// Runs the model.
    fn forward(&self, input: ModelInput) -> Self::Output;

    /// The model below the head.
    fn backbone(&self) -> &Backbone;

    /// The same, to be changed.
    fn backbone_mut(&mut self) -> &mut Backbone;
}

/// A model made ready for inference: its position tables are projected once and not for each input, and on a CPU its weights
/// are laid out for products once, in the [`Precision`] of choice.
///
/// It owns the model and hands it out neither to be changed, so that nothing can go stale, nor to be looked at, because the
/// parameters of weights that are laid out are empty; [`into_inner`](Self::into_inner) gives the model back. In f32 the tables
/// are made when they are first needed, for as many tokens as the next power of two, and again for a longer text. In lower precisions
/// they are made at once, from the weights before rounding. On a device with gradients nothing is prepared.
pub struct Prepared<M> {
    model: M,
    positions: Mutex<Option<PreparedPositions>>,
}

impl<M: InferenceModel> Prepared<M> {
    /// Takes the model, which computes in the type that it was loaded in.
    pub fn new(mut model: M) -> Self {
        let positions = Mutex::new(lay_out(&mut model, Precision::F32));
        Self { model, positions }
    }

    /// Takes the model and lays out its weights in a precision.
    ///
    /// # Errors
    /// [`Error::Device`] if the model's device does not support the precision or keeps gradients, or if the model was loaded in
    /// another type than [`Precision::load_dtype`].
    pub fn with_precision(mut model: M, precision: Precision) -> Result<Self> {
        let linears = model.backbone_mut().linears();
        let Some((device, dtype)) = linears.first().map(|(_, linear)| (linear.device(), linear.dtype())) else {
            return Ok(Self::new(model));
        };
        let fail = |problem: String| Err(Error::Device { device: device::name(&device), problem });
        let wanted = DType::from(precision.load_dtype(&device)?);
        if dtype != wanted {
            return fail(format!("{precision} is made of weights in {wanted:?}, but these were loaded in {dtype:?}"));
        }
        if precision.is_low() && device::is_host(&device) && device.is_autodiff() {
            return fail(format!("weights in {precision} have no gradients; load the model on `device.inner()`"));
        }
        let positions = Mutex::new(lay_out(&mut model, precision));
        Ok(Self { model, positions })
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
    pub(crate) fn run<T: Send>(&self, input: ModelInput, method: impl FnOnce(&M, ModelInput) -> T + Send) -> T {
        let device = input.input_ids.device();
        // Not in the pass itself: a thread of the pool that waits with a lock could take up a pass that wants the same lock.
        let input = self.prepare(input);
        device::in_its_threads(&device, || method(&self.model, input))
    }

    fn prepare(&self, input: ModelInput) -> ModelInput {
        let [_, length] = input.input_ids.dims();
        if input.input_ids.device().is_autodiff() {
            // Dropout and gradients want the tables made anew.
            return input;
        }
        let reach = |tables: &Option<PreparedPositions>| tables.as_ref().map_or(0, |tables| tables.length);
        // The tables are replaced whole, so that a thread that panicked leaves none half made.
        let tables = || self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut positions = tables().clone();
        if reach(&positions) < length {
            // Not behind the lock: a thread of the pool that waits for products could take up another pass, which wants it.
            positions = self.model.backbone().prepare_positions(Some(length.next_power_of_two()));
            let mut known = tables();
            if reach(&known) < reach(&positions) {
                known.clone_from(&positions);
            }
        }
        ModelInput { positions, ..input }
    }

    /// The model, to be changed. Its weights are rounded to the precision that they were laid out in; on a CPU its
    /// [compute type](Backbone::compute_type) is that of its parameters.
    pub fn into_inner(mut self) -> M {
        self.model.backbone_mut().linears().into_par_iter().for_each(|(_, linear)| linear.unpack());
        self.model
    }
}

/// Lays out a model's weights in a precision, if its device has a use for that. Gives the position tables of a lower precision
/// than f32, from the weights before rounding.
fn lay_out(model: &mut impl InferenceModel, precision: Precision) -> Option<PreparedPositions> {
    let device = model.backbone_mut().linears().first().map(|(_, linear)| linear.device())?;
    if !device::is_host(&device) || device.is_autodiff() {
        return None;
    }
    // What is rounded is for the precision to say, and not for the one that the model was trained in.
    model.backbone_mut().set_compute_type(None);
    let positions = if precision.is_low() { model.backbone().prepare_positions(None) } else { None };
    let linears = model.backbone_mut().linears();
    linears.into_par_iter().for_each(|(role, linear)| linear.pack(precision.weights(role, Isa::in_use())));
    positions
}
