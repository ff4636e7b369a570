//! Models made ready for inference: what depends on weights alone is computed once.

use std::sync::{Mutex, PoisonError};

use burn::tensor::DType;
use rayon::prelude::*;

use super::{
    attention::PreparedPositions,
    input::ModelInput,
    linear::{Linear, LinearRole},
    precision::Precision,
};
use crate::{Error, Result, device};

/// A model as inference sees it, with a head or without.
pub trait Head: Send + Sync {
    /// What it computes: logits of some shape, or hidden states.
    type Output;

    /// Runs the model.
    fn forward(&self, input: ModelInput) -> Self::Output;

    /// The projected position tables of the encoder for inputs of up to `length` tokens, of any length if there is none, if it
    /// has any; for [`Prepared`].
    fn prepare_positions(&self, _length: Option<usize>) -> Option<PreparedPositions> {
        None
    }

    /// The linear maps that every token passes: those worth laying out for inference ([`Prepared`]).
    fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)>;
}

/// A model made ready for inference: its position tables are projected once and not for each input, and on a CPU its weights
/// are laid out for products once, in the [`Precision`] of choice.
///
/// It owns the model and hands it out neither to be changed, so that nothing can go stale, nor to be looked at, because the
/// parameters of weights that are laid out are empty; [`into_inner`](Self::into_inner) gives the model back. In f32 the tables
/// are made when first needed, and again when a text is more than twice as long as all before; in lower precisions they are made
/// at once, of the weights as they were. On a device with gradients nothing is prepared.
pub struct Prepared<H> {
    head: H,
    positions: Mutex<Option<PreparedPositions>>,
}

impl<H: Head> Prepared<H> {
    /// Takes the model, which computes in the type that it was loaded in.
    pub fn new(mut head: H) -> Self {
        lay_out(&mut head, Precision::F32);
        Self { head, positions: Mutex::default() }
    }

    /// Takes the model and lays out its weights in a precision.
    ///
    /// # Errors
    /// [`Error::Device`] if the model's device has no such precision or keeps gradients, or the model was not loaded in the type
    /// that the precision [wants](Precision::load_dtype).
    pub fn with_precision(mut head: H, precision: Precision) -> Result<Self> {
        let Some((device, dtype)) = head.linears().first().map(|(_, linear)| (linear.device(), linear.dtype())) else {
            return Ok(Self::new(head));
        };
        let fail = |problem: String| Err(Error::Device { device: device::name(&device), problem });
        let wanted = DType::from(precision.load_dtype(&device)?);
        if dtype != wanted {
            return fail(format!("{precision} is made of weights in {wanted:?}, but these were loaded in {dtype:?}"));
        }
        let lays_out = !matches!(precision, Precision::F32 | Precision::F16) && device::is_host(&device);
        if lays_out && device.is_autodiff() {
            return fail(format!("weights in {precision} have no gradients; load the model on `device.inner()`"));
        }
        // Of the weights as they were.
        let positions = if lays_out { head.prepare_positions(None) } else { None };
        lay_out(&mut head, precision);
        Ok(Self { head, positions: Mutex::new(positions) })
    }

    /// Runs one of the model's own methods on an input, with the tables added.
    pub(crate) fn run<T>(&self, input: ModelInput, method: impl FnOnce(&H, ModelInput) -> T) -> T {
        method(&self.head, self.prepare(input))
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
            *positions = self.head.prepare_positions(Some(length.next_power_of_two()));
        }
        ModelInput { positions: positions.clone(), ..input }
    }

    /// The model, to be changed; its weights are rounded to the precision that they were laid out in.
    pub fn into_inner(mut self) -> H {
        self.head.linears().into_par_iter().for_each(|(_, linear)| linear.unpack());
        self.head
    }
}

/// Lays out a model's weights in a precision, where its device has use for that.
fn lay_out(head: &mut impl Head, precision: Precision) {
    head.linears().into_par_iter().for_each(|(role, linear)| linear.pack(precision.weights(role)));
}

impl<H: Head> Head for Prepared<H> {
    type Output = H::Output;

    fn forward(&self, input: ModelInput) -> H::Output {
        self.run(input, H::forward)
    }

    /// None: they are laid out already.
    fn linears(&mut self) -> Vec<(LinearRole, &mut Linear)> {
        Vec::new()
    }
}
