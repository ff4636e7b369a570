//! LoRA adapters in the layout of PEFT, merged into the weights of their base model.
//!
//! LoRA (Hu and others, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022) learns a small change of a matrix,
//! as the product of two narrow ones:
//!
//! ```text
//! W' = W + s B A        W [outputs, inputs], A [r, inputs], B [outputs, r], s = alpha / r  (rsLoRA: alpha / sqrt(r))
//! ```
//!
//! The merge happens in the layout of the file, before anything is converted: an adapter of v1's packed projection is that
//! of one matrix like any other.

mod config;
mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{
    store::burn_pack::Tensor as Stored,
    tensor::{Bytes, DType},
};

use config::AdapterConfig;
pub(crate) use write::{AdapterSettings, is_part, write};

use super::{content::Content, convert, names};
use crate::{
    Error, ModelConfig, Result,
    foreign::{self, Part},
};

/// The files that may hold an adapter's weights; the first that is there is read.
const FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// What PEFT puts in front of every key of the model.
const PREFIX: &str = "base_model.model.";

/// The ends of the keys of a pair.
const PAIR: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// A PEFT adapter.
pub(super) struct Adapter {
    folder: PathBuf,
    config: AdapterConfig,
    /// The file of the weights, for messages.
    file: PathBuf,
    /// A and B, by the module that they change.
    pairs: BTreeMap<String, [Option<Stored>; 2]>,
    /// Tensors that replace those of the base.
    saved: Vec<Stored>,
}

impl Adapter {
    /// Opens the folder of an adapter: `adapter_config.json`, and `adapter_model.safetensors` or `.bin`.
    ///
    /// # Errors
    /// A missing or damaged file, or a kind of adapter that is not supported; see [`AdapterConfig::from_folder`].
    pub fn open(folder: &Path) -> Result<Self> {
        let config = AdapterConfig::from_folder(folder)?;
        let file = FILES.iter().map(|file| folder.join(file)).find(|path| path.exists()).ok_or_else(|| {
            let problem = format!("there are no weights in it; looked for {}", FILES.join(", "));
            Error::missing(folder, format!("adapter {}: {problem}", folder.display()))
        })?;
        let mut adapter = Self { folder: folder.to_owned(), config, file, pairs: BTreeMap::new(), saved: Vec::new() };
        for mut tensor in Content::of(&adapter.file)?.tensors {
            // With biases, PEFT writes modules to save three times: as they are, as they were, and by its own names.
            if [".modules_to_save.", ".original_module."].iter().any(|copy| tensor.name.contains(copy)) {
                continue;
            }
            let Some(key) = tensor.name.strip_prefix(PREFIX) else {
                let problem = format!("its name does not begin with `{PREFIX}`: PEFT wrote no such key");
                return Err(adapter.refuse(&tensor.name, &problem));
            };
            let key = key.replacen(".base_layer.", ".", 1);
            let part = PAIR.iter().enumerate().find_map(|(part, end)| Some((part, key.strip_suffix(end)?)));
            if let Some((part, module)) = part {
                adapter.pairs.entry(module.to_owned()).or_default()[part] = Some(tensor);
            } else if key.contains(".lora_") {
                let problem = "only LoRA of linear maps is supported; merge the adapter with PEFT (merge_and_unload), and \
                               open the result";
                return Err(adapter.refuse(&tensor.name, problem));
            } else {
                tensor.name = key;
                adapter.saved.push(tensor);
            }
        }
        Ok(adapter)
    }

    /// Merges the adapter into the tensors of its base model, the folder `base`, before v1's are split. Values are read
    /// when they are needed. A merged matrix is in f32, whatever it was before. Returns the configuration of the result.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the adapter changes what the base does not have, in another shape or rank, or what its own
    /// configuration does not name; a `config.json` that cannot be read.
    pub fn merge(self, base: &Path, tensors: &mut Vec<Stored>) -> Result<ModelConfig> {
        let keys: BTreeMap<String, usize> =
            tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.clone(), at)).collect();
        for (module, pair) in &self.pairs {
            let [Some(a), Some(b)] = pair else {
                let [a, b] = PAIR.map(|end| format!("{PREFIX}{module}{end}"));
                return Err(self.refuse(&a, &format!("one of it and `{b}` is missing; copy the file again")));
            };
            let weight = format!("{module}.weight");
            let Some(&at) = find(&keys, &weight) else {
                return Err(
                    self.refuse(&a.name, &format!("the base model has no `{weight}`; is it that of this adapter?"))
                );
            };
            let scale = self.scale(module, a, b, &tensors[at])?;
            tensors[at] = merged(&tensors[at], a.clone(), b.clone(), scale);
        }
        for tensor in &self.saved {
            let known = find(&keys, &tensor.name).copied();
            if !self.config.saves(&tensor.name) {
                let fits = known.is_some_and(|at| tensors[at].shape == tensor.shape);
                if !(fits && self.config.trains_biases() && tensor.name.contains("bias")) {
                    let problem = "adapter_config.json names it neither in `modules_to_save` nor by `bias`, or the base model has \
                                   none of this shape";
                    return Err(self.refuse(&tensor.name, problem));
                }
            }
            match known {
                Some(at) => tensors[at] = renamed(tensor, &tensors[at].name),
                None => tensors.push(tensor.clone()),
            }
        }
        self.require_pooler(tensors)?;
        self.model_config(base, tensors)
    }

    /// The configuration of the adapted model: that in the adapter's folder, else the base model's with the adapter's task
    /// and as many labels as its classifier has.
    fn model_config(&self, base: &Path, tensors: &[Stored]) -> Result<ModelConfig> {
        if self.folder.join("config.json").exists() {
            return ModelConfig::from_folder(&self.folder);
        }
        let mut config = ModelConfig::from_folder(base)?;
        if let Some(task) = self.config.task() {
            config.set_architecture(task);
        }
        let classifier = tensors.iter().find(|tensor| names::CLASSIFIERS.contains(&tensor.name.as_str()));
        let labels = classifier.and_then(|tensor| tensor.shape.first().copied());
        if let Some(labels) = labels.filter(|labels| *labels != config.task().num_labels()) {
            let task = config.task_mut();
            *task = std::mem::take(task).with_num_labels(labels);
        }
        Ok(config)
    }

    /// The factor of a pair's product, after the pair was checked against its matrix.
    fn scale(&self, module: &str, a: &Stored, b: &Stored, weight: &Stored) -> Result<f32> {
        if !self.config.targets(module) {
            return Err(self.refuse(&a.name, "`target_modules` in adapter_config.json does not name its module"));
        }
        let rank = self.config.rank(module);
        let &[outputs, inputs] = &weight.shape[..] else {
            let problem =
                format!("`{}` has the shape {:?}, and only matrices are supported", weight.name, weight.shape);
            return Err(self.refuse(&a.name, &problem));
        };
        for (tensor, expected) in [(a, [rank, inputs]), (b, [outputs, rank])] {
            if tensor.shape[..] != expected {
                let problem =
                    format!("it has the shape {:?}, expected {expected:?}, with the rank {rank}", tensor.shape);
                return Err(self.refuse(&tensor.name, &problem));
            }
        }
        match [a, b, weight].into_iter().find(|tensor| !convert::is_supported(tensor.dtype)) {
            Some(tensor) => {
                let problem = format!("its type is {:?}, expected F32, F16 or BF16", tensor.dtype);
                Err(self.refuse(&tensor.name, &problem))
            }
            None => Ok(self.config.scale(module)),
        }
    }

    /// Refuses an adapter of a classifier whose pooler is nowhere: PEFT trained it over a random one and did not save that.
    fn require_pooler(&self, tensors: &[Stored]) -> Result<()> {
        let has = |key: &str| tensors.iter().any(|tensor| tensor.name == key);
        let needs = self.config.task() == Some("ForSequenceClassification") && has("classifier.weight");
        if !needs || names::has_head("ForSequenceClassification", has) {
            return Ok(());
        }
        let problem = "neither the adapter nor its base model has the pooler (`pooler.dense.*`). It was drawn at random for \
                       the training, and PEFT saved only what it was told to: train again with \
                       modules_to_save=[\"pooler\", \"classifier\"]";
        Err(Error::checkpoint(&self.folder, problem))
    }

    fn refuse(&self, tensor: &str, problem: &str) -> Error {
        Error::tensor(&self.file, tensor, problem)
    }
}

/// The same tensor under another key.
pub(super) fn renamed(tensor: &Stored, key: &str) -> Stored {
    let mut tensor = tensor.clone();
    tensor.name = key.to_owned();
    tensor
}

/// The entry of a key, with or without the backbone's name in front: the file of a bare model has none, that of a head
/// has.
fn find<'a>(keys: &'a BTreeMap<String, usize>, key: &str) -> Option<&'a usize> {
    let of_head = || names::BACKBONES.iter().find_map(|prefix| keys.get(&format!("{prefix}{key}")));
    keys.get(key).or_else(|| keys.get(names::bare(key))).or_else(of_head)
}

/// W + s B A.
fn merged(weight: &Stored, a: Stored, b: Stored, scale: f32) -> Stored {
    let (name, shape) = (weight.name.clone(), weight.shape.clone());
    let (inputs, rank) = (a.shape[1], a.shape[0]);
    let (weight, length) = (weight.clone(), shape.iter().product::<usize>() * size_of::<f32>());
    Stored::deferred(name, DType::F32, shape, None, length, move || {
        let mut weight = convert::values(&weight)?;
        let (a, b) = (convert::values(&a)?, convert::values(&b)?);
        for (row, factors) in weight.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
            for (factor, direction) in factors.iter().zip(a.chunks_exact(inputs)) {
                let factor = factor * scale;
                row.iter_mut().zip(direction).for_each(|(value, part)| *value += factor * part);
            }
        }
        Ok(Bytes::from_elems(weight))
    })
}

/// The error for a folder that is no adapter's.
fn no_adapter(folder: &Path) -> Error {
    let problem = "there is no adapter_config.json in it, as PEFT writes";
    match foreign::explain(folder, Part::Weights) {
        Some(sign) => Error::unsupported(format!("adapter {}", folder.display()), sign.meaning),
        None => Error::missing(folder, format!("adapter {}: {problem}", folder.display())),
    }
}
