//! Switch feed-forward layers: the key `switch` of `config.json`, which is this crate's own. transformers keeps it and
//! ignores it.

use serde::{Deserialize, Serialize};

use super::{require, require_positive, require_probability};
use crate::Result;

/// Feed-forward networks of which each token passes one of several (Fedus and others, "Switch Transformers", JMLR 2022).
/// Field names are the keys; those that are absent have the defaults. An unknown key is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchConfig {
    /// Feed-forward networks of a Switch layer.
    pub num_experts: usize,
    /// Every so many layers, one is a Switch layer: with 2, the second, the fourth and so on; with 1, all are.
    pub sparse_step: usize,
    /// In training, an expert takes at most `factor * tokens / experts` tokens of a batch, rounded up.
    pub capacity_factor: f64,
    /// The same factor at inference; if absent, there is no limit, and no answer depends on other texts of the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_capacity_factor: Option<f64>,
    /// Counts capacity as transformers does: an expert takes at most so many tokens of each sequence, in training and at
    /// inference, and the factors do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_capacity: Option<usize>,
    /// In training, the router's inputs are multiplied by random numbers that differ from 1 by at most this.
    pub router_jitter_noise: f64,
    /// Weight of the balance loss.
    pub router_aux_loss_coef: f64,
    /// Weight of the z loss (Zoph and others, "ST-MoE", 2022, section 3.2).
    pub router_z_loss_coef: f64,
    /// Dropout of the inner states of experts. The paper fine-tunes with 0.4.
    pub expert_dropout: f64,
}

impl Default for SwitchConfig {
    /// The paper's numbers of pretraining.
    fn default() -> Self {
        Self {
            num_experts: 8,
            sparse_step: 2,
            capacity_factor: 1.25,
            eval_capacity_factor: None,
            expert_capacity: None,
            router_jitter_noise: 0.01,
            router_aux_loss_coef: 0.01,
            router_z_loss_coef: 0.0,
            expert_dropout: 0.0,
        }
    }
}

/// The largest number of experts: that of the paper's largest model.
const MOST_EXPERTS: usize = 2048;

impl SwitchConfig {
    /// Whether the layer with this number, from 0, is a Switch layer.
    pub fn is_switch(&self, layer: usize) -> bool {
        layer % self.sparse_step == 1 % self.sparse_step
    }

    /// Checks every value that could make a model with this many layers fail.
    pub(super) fn validate(&self, layers: usize) -> Result<()> {
        let experts = self.num_experts;
        require("switch.num_experts", experts, (1..=MOST_EXPERTS).contains(&experts), "from 1 to 2048")?;
        let (step, expected) = (self.sparse_step, "at least 1, and 1 if the model has one layer");
        require("switch.sparse_step", step, step == 1 || step > 1 && layers > 1, expected)?;
        require_positive("switch.capacity_factor", self.capacity_factor)?;
        if let Some(factor) = self.eval_capacity_factor {
            require_positive("switch.eval_capacity_factor", factor)?;
        }
        let capacity = self.expert_capacity;
        require("switch.expert_capacity", capacity.unwrap_or(1), capacity != Some(0), "at least 1")?;
        require_probability("switch.router_jitter_noise", self.router_jitter_noise)?;
        require_weight("switch.router_aux_loss_coef", self.router_aux_loss_coef)?;
        require_weight("switch.router_z_loss_coef", self.router_z_loss_coef)?;
        require_probability("switch.expert_dropout", self.expert_dropout)
    }
}

fn require_weight(key: &'static str, value: f64) -> Result<()> {
    require(key, value, value >= 0.0 && value.is_finite(), "at least 0 and finite")
}
