//! Which parameters decay, and how fast each learns.

use burn::{
    Tensor,
    module::{Module, ModuleMapper, Param},
};
use serde::{Deserialize, Serialize};

/// How parameters are treated, by their position in the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterGroups {
    /// Number of encoder layers.
    pub layers: usize,
    /// Factor of the learning rate from each layer to the one below it. The head has the full rate, the last layer this
    /// factor of it, and the embeddings its power of `layers + 1`. 1 gives all layers the same rate.
    pub layer_decay: f64,
}

/// The group of one parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor of the learning rate.
    pub rate: f64,
    /// Whether the parameter decays.
    pub decays: bool,
}

/// The part of the model that a parameter belongs to.
enum ModulePart {
    /// Token, position and type embeddings and their projection, and the embeddings of relative positions.
    Embeddings,
    /// An encoder layer.
    Layer(usize),
    /// What follows the encoder.
    Head,
}

impl ModulePart {
    fn of(path: &str) -> Self {
        // Two models that are trained together are fields in front of it.
        let path = path.split_once("backbone.").map_or(path, |(_, rest)| rest);
        if let Some(rest) = path.strip_prefix("encoder.layer.") {
            return Self::Layer(rest.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0));
        }
        match path.split('.').next() {
            // The convolution belongs to the first layer's input.
            Some("embeddings" | "encoder") => Self::Embeddings,
            _ => Self::Head,
        }
    }
}

impl ParameterGroups {
    /// The group of the parameter at this path of field names.
    pub fn of(&self, path: &str) -> Group {
        let below = match ModulePart::of(path) {
            ModulePart::Head => 0,
            ModulePart::Layer(number) => self.layers.saturating_sub(number),
            ModulePart::Embeddings => self.layers + 1,
        };
        // Biases, LayerNorms (burn's gamma and beta), and the temperature of a contrastive loss.
        let last = path.rsplit('.').next().unwrap_or(path);
        let decays = !matches!(last, "bias" | "gamma" | "beta" | "log_scale");
        Group { rate: self.layer_decay.powi(below as i32), decays }
    }
}

/// Which part of the model does not learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// The embeddings.
    pub embeddings: bool,
    /// The first so many encoder layers.
    pub layers: usize,
}

impl Frozen {
    /// Marks the frozen parameters: no gradient is computed for them.
    pub fn freeze<M: Module>(self, model: M) -> M {
        if self == Self::default() {
            return model;
        }
        freeze(model, |path| self.holds(path))
    }

    fn holds(&self, path: &str) -> bool {
        match ModulePart::of(path) {
            ModulePart::Embeddings => self.embeddings,
            ModulePart::Layer(number) => number < self.layers,
            ModulePart::Head => false,
        }
    }
}

/// Marks the parameters at some paths of field names as frozen: no gradient is computed for them.
pub(in crate::training) fn freeze<M: Module>(model: M, holds: impl Fn(&str) -> bool) -> M {
    model.map(&mut Freezer { holds, path: Vec::new() })
}

struct Freezer<F> {
    holds: F,
    path: Vec<String>,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Freezer<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if (self.holds)(&self.path.join(".")) { param.set_require_grad(false) } else { param }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_fall_towards_the_embeddings() {
        let groups = ParameterGroups { layers: 3, layer_decay: 0.5 };
        let rate = |path: &str| groups.of(path).rate;
        assert_eq!(rate("classifier.weight"), 1.0);
        assert_eq!(rate("backbone.encoder.layer.2.attention.query_proj.weight"), 0.5);
        assert_eq!(rate("backbone.encoder.layer.0.attention.query_proj.weight"), 0.125);
        assert_eq!(rate("backbone.embeddings.word_embeddings.weight"), 0.0625);
        assert_eq!(rate("encoder.rel_embeddings.weight"), 0.0625);
    }

    #[test]
    fn biases_norms_and_temperatures_do_not_decay() {
        let groups = ParameterGroups { layers: 1, layer_decay: 1.0 };
        for path in
            ["pooler.dense.bias", "backbone.embeddings.layer_norm.gamma", "lm_head.layer_norm.beta", "log_scale"]
        {
            assert!(!groups.of(path).decays, "{path}");
        }
        assert!(groups.of("backbone.encoder.rel_embeddings.weight").decays);
    }

    #[test]
    fn layers_freeze_from_below() {
        let frozen = Frozen { embeddings: true, layers: 1 };
        for (path, holds) in [
            ("backbone.embeddings.layer_norm.gamma", true),
            ("backbone.encoder.layer.0.feed_forward.network.Dense.widen.weight", true),
            ("backbone.encoder.layer.1.feed_forward.network.Dense.widen.weight", false),
            ("classifier.weight", false),
        ] {
            assert_eq!(frozen.holds(path), holds, "{path}");
        }
    }
}
