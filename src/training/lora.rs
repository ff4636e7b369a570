//! Fine-tuning by low-rank adapters (LoRA, Hu and others, ICLR 2022): the backbone stays as it is, and learns only through
//! small changes of its linear maps. The head is trained as a whole.

use serde::{Deserialize, Serialize};

use super::{bounds::positive, objective::Objective, optimizer::freeze};
use crate::{
    Error, Result,
    checkpoint::adapter::{self, AdapterSettings},
    data::Random,
    model::{linear::Linear, lora::LowRank},
};

pub use crate::model::linear::LinearRole;

/// How a model is adapted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// The base model, as [`locate`](crate::checkpoint::locate) finds it: a folder or the id of a repository. The adapter is
    /// nothing without it.
    pub base: String,
    /// Columns of A and rows of B.
    pub rank: usize,
    /// Numerator of the factor s = alpha / rank.
    pub alpha: f64,
    /// The linear maps of each layer that are adapted.
    pub targets: Vec<LinearRole>,
    /// Whether the run leaves a whole model, with the changes merged into its weights, and not an adapter.
    pub merged: bool,
}

impl Lora {
    /// Rank 8, alpha 16, queries and values, an adapter, as PEFT's defaults for DeBERTa but for alpha.
    pub fn new(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            rank: 8,
            alpha: 16.0,
            targets: vec![LinearRole::Query, LinearRole::Value],
            merged: false,
        }
    }

    /// Checks every number, as [`TrainingSettings::validate`](super::TrainingSettings::validate) does.
    ///
    /// # Errors
    /// As there.
    pub fn validate(&self) -> Result<()> {
        positive("--lora", self.rank as f64)?;
        positive("--lora-alpha", self.alpha)?;
        match self.targets.is_empty() {
            true => Err(Error::setting("--lora-targets", "there are none, expected at least one linear map")),
            false => Ok(()),
        }
    }

    /// Puts a low-rank change beside each target. A is drawn from the seed as PEFT draws it, uniformly up to
    /// `1 / sqrt(inputs)`; B is zero.
    pub(super) fn attach<M: Objective>(&self, model: &mut M, seed: u64) {
        let targets = linears(model).into_iter().filter(|(role, _)| self.targets.contains(role));
        for (number, (_, linear)) in targets.enumerate() {
            let shape @ [inputs, _] = linear.weight.lazy_shape().dims();
            let mut random = Random::new(&[seed, number as u64]);
            let bound = 1.0 / (inputs as f64).sqrt();
            let down = (0..inputs * self.rank).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect();
            let place = (&linear.device(), linear.dtype());
            linear.set_lora(Some(LowRank::new(shape, place, down, self.rank, self.alpha / self.rank as f64)));
        }
    }

    /// Takes the changes away again.
    pub(super) fn detach<M: Objective>(model: &mut M) {
        linears(model).into_iter().for_each(|(_, linear)| linear.set_lora(None));
    }

    /// The model with the changes merged into its weights.
    pub(super) fn merge<M: Objective>(mut model: M) -> M {
        linears(&mut model).into_iter().for_each(|(_, linear)| linear.merge_lora());
        model
    }

    /// Freezes all parameters but those of the adapter.
    pub(super) fn freeze<M: Objective>(model: M) -> M {
        freeze(model, |path| !adapter::is_part(path))
    }

    /// What the adapter's file says.
    pub(super) fn adapter_settings(&self) -> AdapterSettings<'_> {
        AdapterSettings { base: &self.base, rank: self.rank, alpha: self.alpha }
    }
}

/// The linear maps of all backbones.
fn linears<M: Objective>(model: &mut M) -> Vec<(LinearRole, &mut Linear)> {
    model.backbones_mut().into_iter().flat_map(|backbone| backbone.linears()).collect()
}
