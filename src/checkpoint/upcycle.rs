//! Upcycling: a dense checkpoint as the start of one with Switch layers (Komatsuzaki and others, "Sparse Upcycling", ICLR
//! 2023). Every expert begins as a copy of the dense network, and the router as fresh numbers.
//!
//! An expert's output is multiplied by the router's probability from the first step on. The paper's other choice, weights that
//! are divided by their sum, is the constant 1 for one expert a token, and the task would teach the router nothing. So the
//! sum of a layer's output begins smaller than the dense network's, unless there is one expert only.

use std::{collections::BTreeMap, f64::consts::PI, path::Path};

use burn::{
    store::burn_pack::Tensor as Stored,
    tensor::{Bytes, DType},
};

use super::{Checkpoint, adapter::renamed};
use crate::{Error, ModelConfig, Result, config::SwitchConfig, data::Random};

/// Standard deviation of a fresh router's weights (the paper's section 3).
const ROUTER_DEVIATION: f64 = 0.02;

/// What follows the number of a layer in the keys of its feed-forward network.
const NETWORK: [&str; 4] =
    ["intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight", "output.dense.bias"];

impl Checkpoint {
    /// [Opens](Self::open) the weights in `folder` for a model of this configuration, and [upcycles](Self::upcycle) them if
    /// it has Switch layers where that in the folder has none.
    ///
    /// # Errors
    /// As both.
    pub fn open_for(folder: impl AsRef<Path>, config: &ModelConfig) -> Result<Self> {
        let checkpoint = Self::open(folder)?;
        match config.switch() {
            Some(switch) if checkpoint.config()?.switch().is_none() => checkpoint.upcycle(switch),
            _ => Ok(checkpoint),
        }
    }

    /// Turns the feed-forward networks of some layers into Switch layers whose experts are copies of them. Values are read when
    /// they are needed. The routers are drawn from N(0, 0.02), the same each time.
    ///
    /// # Errors
    /// The checkpoint has Switch layers already, or a layer lacks its network; impossible values in `switch`; a `config.json`
    /// that cannot be read.
    pub fn upcycle(mut self, switch: &SwitchConfig) -> Result<Self> {
        let mut config = self.config()?;
        if config.switch().is_some() {
            let problem = "it has Switch layers already, and only a dense one can be upcycled";
            return Err(Error::checkpoint(self.folder(), problem));
        }
        config.set_switch(switch.clone());
        config.validate()?;
        let mut experts = BTreeMap::new();
        for layer in (0..config.num_hidden_layers()).filter(|layer| switch.is_switch(*layer)) {
            let prefix = self.layer_prefix(layer)?;
            for part in NETWORK {
                let key = format!("{prefix}{part}");
                let Some(dense) = self.tensors.remove(&key) else {
                    return Err(Error::tensor(self.folder(), &key, "it is missing: the layer has no such network"));
                };
                if part == NETWORK[0] {
                    let router = router(
                        format!("{prefix}switch.router.weight"),
                        switch,
                        dense.shape.last().copied().unwrap_or(0),
                        layer,
                    );
                    experts.insert(router.name.clone(), router);
                }
                for expert in 0..switch.num_experts {
                    let copy = renamed(&dense, &format!("{prefix}switch.experts.{expert}.{part}"));
                    experts.insert(copy.name.clone(), copy);
                }
            }
        }
        self.tensors.extend(experts);
        self.changed = Some(config);
        Ok(self)
    }

    /// The start of a layer's keys.
    fn layer_prefix(&self, layer: usize) -> Result<String> {
        let part = format!("encoder.layer.{layer}.");
        let found = self.keys().find_map(|key| Some(key[..key.find(&part)?].to_owned() + &part));
        found.ok_or_else(|| Error::tensor(self.folder(), &part, "no key has it: the weights have no such layer"))
    }
}

/// A fresh router, [experts, hidden] as in files.
fn router(name: String, switch: &SwitchConfig, hidden: usize, layer: usize) -> Stored {
    let shape = [switch.num_experts, hidden];
    let count = shape[0] * shape[1];
    Stored::deferred(name, DType::F32, shape, None, count * size_of::<f32>(), move || {
        let mut random = Random::new(&[layer as u64]);
        // Box and Muller's transform; 1 - u is never zero.
        let mut normal = || (-2.0 * (1.0 - random.uniform()).ln()).sqrt() * (2.0 * PI * random.uniform()).cos();
        Ok(Bytes::from_elems((0..count).map(|_| (ROUTER_DEVIATION * normal()) as f32).collect::<Vec<_>>()))
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType, Tensor};
    use tempfile::TempDir;

    use super::*;
    use crate::{
        DebertaConfig, RobertaConfig,
        checkpoint::{self, LoadOptions, RangePolicy, convert},
        config::DebertaVersion,
        model::{Backbone, ModelInput},
    };

    /// Both families, small.
    fn configs() -> [ModelConfig; 3] {
        let deberta = |version| DebertaConfig {
            vocab_size: 12,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 16,
            initializer_range: 0.5,
            ..DebertaConfig::new(version)
        };
        let roberta = RobertaConfig {
            vocab_size: 12,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 16,
            initializer_range: 0.5,
            ..RobertaConfig::default()
        };
        [deberta(DebertaVersion::V1).into(), deberta(DebertaVersion::V2).into(), roberta.into()]
    }

    fn dense(config: &ModelConfig) -> (TempDir, Backbone) {
        let (folder, device) = (TempDir::new().unwrap(), Device::flex());
        device.seed(6);
        let model = Backbone::new(config, &device);
        checkpoint::write(&model, config, &folder, None).unwrap();
        (folder, model)
    }

    fn states(model: &Backbone) -> Vec<f32> {
        let ids = Tensor::from_ints([[2, 5, 7, 3, 9, 4], [8, 3, 3, 6, 10, 11]], &Device::flex());
        model.forward(ModelInput::new(ids)).last_hidden_state.into_data().try_to_vec().unwrap()
    }

    fn switch(num_experts: usize) -> SwitchConfig {
        SwitchConfig { num_experts, ..SwitchConfig::default() }
    }

    #[test]
    fn one_expert_computes_the_dense_model() {
        for config in configs() {
            let (folder, model) = dense(&config);
            // Through a file, as `convert` writes it.
            let (written, device) = (TempDir::new().unwrap(), Device::flex());
            let upcycled = Checkpoint::open(&folder).unwrap().upcycle(&switch(1)).unwrap();
            checkpoint::rewrite(&upcycled, &written, FloatDType::F32, RangePolicy::Refuse).unwrap();
            let config = ModelConfig::from_folder(&written).unwrap();
            assert_eq!(config.switch(), Some(&switch(1)));
            let loaded = Checkpoint::open(&written).unwrap();
            let loaded = loaded.load(Backbone::new(&config, &device), &LoadOptions::default()).unwrap().0;
            // A probability of exactly 1, and the same products.
            assert_eq!(states(&loaded), states(&model));
        }
    }

    /// The same tensor, times a factor.
    fn scaled(tensor: &Stored, factor: f32) -> Stored {
        let (name, shape, values) = (tensor.name.clone(), tensor.shape.clone(), convert::values(tensor).unwrap());
        Stored::deferred(name, DType::F32, shape, None, values.len() * size_of::<f32>(), move || {
            Ok(Bytes::from_elems(values.iter().map(|value| value * factor).collect::<Vec<_>>()))
        })
    }

    /// A router of zeros gives each of four experts a quarter, which rounds nothing: the network's output is a quarter of the
    /// dense one's, and its residual is whole.
    #[test]
    fn outputs_are_multiplied_by_probabilities_and_not_normalised() {
        for config in configs() {
            let (folder, model) = dense(&config);
            let load = |checkpoint: &Checkpoint, config: &ModelConfig| {
                let model = Backbone::new(config, &Device::flex());
                states(&checkpoint.load(model, &LoadOptions::default()).unwrap().0)
            };
            let mut quarter = Checkpoint::open(&folder).unwrap();
            for part in &NETWORK[2..] {
                let tensor = quarter.tensors.get_mut(&format!("encoder.layer.1.{part}")).unwrap();
                *tensor = scaled(tensor, 0.25);
            }
            let mut upcycled = Checkpoint::open(&folder).unwrap().upcycle(&switch(4)).unwrap();
            let router = upcycled.tensors.get_mut("encoder.layer.1.switch.router.weight").unwrap();
            *router = scaled(router, 0.0);
            let found = load(&upcycled, &upcycled.config().unwrap());
            assert_eq!(found, load(&quarter, &config));
            assert!(found != states(&model));
        }
    }

    #[test]
    fn every_expert_is_the_dense_network() {
        let [_, config, _] = configs();
        let (folder, model) = dense(&config);
        let upcycled = Checkpoint::open(&folder).unwrap().upcycle(&switch(3)).unwrap();
        let values = |checkpoint: &Checkpoint, key: &str| checkpoint.get(key).unwrap().to_bytes().unwrap().to_vec();
        let before = Checkpoint::open(&folder).unwrap();
        for (expert, part) in (0..3).flat_map(|expert| NETWORK.map(|part| (expert, part))) {
            let key = format!("encoder.layer.1.switch.experts.{expert}.{part}");
            assert_eq!(values(&upcycled, &key), values(&before, &format!("encoder.layer.1.{part}")));
        }
        assert!(!upcycled.contains("encoder.layer.1.intermediate.dense.weight"));
        assert!(upcycled.contains("encoder.layer.0.intermediate.dense.weight"));
        let mut sparse = config.clone();
        sparse.set_switch(switch(3));
        let opened = Checkpoint::open_for(&folder, &sparse).unwrap();
        let loaded = opened.load(Backbone::new(&sparse, &Device::flex()), &LoadOptions::default()).unwrap().0;
        assert!(states(&loaded) != states(&model));
        let opened = Checkpoint::open_for(&folder, &config).unwrap();
        assert!(opened.contains("encoder.layer.1.intermediate.dense.weight"));
    }

    #[test]
    fn what_cannot_be_upcycled_is_named() {
        let [_, config, _] = configs();
        let (folder, _) = dense(&config);
        let open = || Checkpoint::open(&folder).unwrap();
        let again = open().upcycle(&switch(2)).unwrap().upcycle(&switch(2)).unwrap_err().to_string();
        assert!(again.contains("Switch layers already"), "{again}");
        let none = open().upcycle(&switch(0)).unwrap_err().to_string();
        assert!(none.contains("`switch.num_experts` is 0"), "{none}");
        let mut without = open();
        without.tensors.remove("encoder.layer.1.output.dense.bias");
        let missing = without.upcycle(&switch(2)).unwrap_err().to_string();
        assert!(missing.contains("encoder.layer.1.output.dense.bias"), "{missing}");
    }
}
