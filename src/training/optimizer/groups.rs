//! Which parameters decay, and how fast each learns.

use std::collections::BTreeMap;

use burn::{
    Tensor,
    module::{Module, ModuleMapper, ModuleVisitor, Param},
};
use serde::{Deserialize, Serialize};

/// How parameters are treated, by their position in the model. By default all learn at the same rate.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterGroups {
    /// Encoder layers, by the field in front of their encoder: models that are trained together need not be equally deep.
    layers: BTreeMap<String, usize>,
    /// Factor of the learning rate from each layer to the one below it.
    layer_decay: f64,
}

impl Default for ParameterGroups {
    fn default() -> Self {
        Self { layers: BTreeMap::new(), layer_decay: 1.0 }
    }
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
        let (_, path) = in_model(path);
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

/// The field of the model, if several are trained together, and the path below it.
fn in_model(path: &str) -> (&str, &str) {
    path.split_once("backbone.").unwrap_or(("", path))
}

impl ParameterGroups {
    /// The groups of a model's parameters, of which the head has the full learning rate, the last layer `layer_decay` of it, each
    /// layer below this factor of the one above it, and the embeddings that of the first layer.
    pub fn new<M: Module>(model: &M, layer_decay: f64) -> Self {
        let mut depths = Depths::default();
        model.visit(&mut depths);
        Self { layers: depths.layers, layer_decay }
    }

    /// The group of the parameter at this path of field names.
    pub fn of(&self, path: &str) -> Group {
        let layers = self.layers.get(in_model(path).0).copied().unwrap_or(0);
        let below = match ModulePart::of(path) {
            ModulePart::Head => 0,
            ModulePart::Layer(number) => layers.saturating_sub(number),
            ModulePart::Embeddings => layers + 1,
        };
        // Biases, LayerNorms (burn's gamma and beta), and the temperature of a contrastive loss.
        let last = path.rsplit('.').next().unwrap_or(path);
        let decays = !matches!(last, "bias" | "gamma" | "beta" | "log_scale");
        Group { rate: self.layer_decay.powi(below as i32), decays }
    }
}

/// Counts the layers of each model.
#[derive(Default)]
struct Depths {
    layers: BTreeMap<String, usize>,
    path: Vec<String>,
}

impl ModuleVisitor for Depths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if let ModulePart::Layer(number) = ModulePart::of(&path) {
            let layers = self.layers.entry(in_model(&path).0.to_owned()).or_default();
            *layers = (number + 1).max(*layers);
        }
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
    use burn::tensor::Device;

    use super::*;
    use crate::{
        config::{DebertaConfig, DebertaVersion},
        heads::{DualEncoder, Pooling, TextEncoder},
    };

    #[test]
    fn learning_rates_fall_towards_the_embeddings() {
        let layers = BTreeMap::from([(String::new(), 3), ("counterparts.".to_owned(), 1)]);
        let groups = ParameterGroups { layers, layer_decay: 0.5 };
        let rate = |path: &str| groups.of(path).rate;
        assert_eq!(rate("classifier.weight"), 1.0);
        assert_eq!(rate("backbone.encoder.layer.2.attention.query_proj.weight"), 0.5);
        assert_eq!(rate("backbone.encoder.layer.0.attention.query_proj.weight"), 0.125);
        assert_eq!(rate("backbone.embeddings.word_embeddings.weight"), 0.0625);
        assert_eq!(rate("encoder.rel_embeddings.weight"), 0.0625);
        // Another model beside it, of one layer.
        assert_eq!(rate("counterparts.backbone.encoder.layer.0.attention.query_proj.weight"), 0.5);
        assert_eq!(rate("counterparts.backbone.embeddings.word_embeddings.weight"), 0.25);
    }

    #[test]
    fn layers_are_counted_model_by_model() {
        let of = |layers: usize| DebertaConfig {
            vocab_size: 10,
            hidden_size: 4,
            num_hidden_layers: layers,
            num_attention_heads: 1,
            intermediate_size: 4,
            ..DebertaConfig::new(DebertaVersion::V2)
        };
        let encoder = |layers| TextEncoder::new(&of(layers).into(), Pooling::Mean, 4, &Device::flex());
        let both = DualEncoder::new(encoder(3), encoder(2), of(2).into()).unwrap();
        let layers = BTreeMap::from([("texts.".to_owned(), 3), ("counterparts.".to_owned(), 2)]);
        assert_eq!(ParameterGroups::new(&both, 0.5).layers, layers);
        assert_eq!(ParameterGroups::new(&encoder(3), 0.5).layers, BTreeMap::from([(String::new(), 3)]));
    }

    #[test]
    fn biases_norms_and_temperatures_do_not_decay() {
        let groups = ParameterGroups::default();
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
