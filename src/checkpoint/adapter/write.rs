//! Writing a model's low-rank changes and head as an adapter that PEFT loads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use burn::{module::Module, store::burn_pack::Tensor as Stored, tensor::DType};
use serde_json::json;

use super::{PAIR, PREFIX, config::TASKS, renamed};
use crate::{
    Error, ModelConfig, Result,
    checkpoint::{
        names,
        parameters::Parameter,
        v1,
        write::{names_in_file, stored, write_tensors},
    },
    config::DebertaVersion,
    replacement::Replacement,
};

/// The ends of the paths of a low-rank change's parameters.
const CHANGE: [&str; 2] = [".lora.down", ".lora.up"];

/// What `adapter_config.json` says beside the names of modules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdapterSettings<'a> {
    /// The base model, a folder or the id of a repository.
    pub base: &'a str,
    /// Columns of A and rows of B.
    pub rank: usize,
    /// Numerator of the factor.
    pub alpha: f64,
}

/// Whether the parameter at this path of field names belongs to an adapter: to the head, or to a low-rank change.
pub(crate) fn is_part(path: &str) -> bool {
    !path.split('.').any(|name| name == "backbone") || CHANGE.iter().any(|end| path.ends_with(end))
}

/// Writes the adapter of `module` into `folder` as PEFT writes it, and the configuration beside it: low-rank changes, and the
/// head as modules to save. The changes of v1's three projections, which are one matrix in a file, become one change of a
/// higher rank.
///
/// # Errors
/// As [`checkpoint::write`](crate::checkpoint::write()).
pub(crate) fn write<M: Module>(
    module: &M,
    config: &ModelConfig,
    folder: &Path,
    settings: AdapterSettings<'_>,
) -> Result<()> {
    let (parameters, mut config) = (Parameter::of(module), config.clone());
    let names = names_in_file(&parameters, &mut config);
    let (mut changes, mut head) = (BTreeMap::<String, Vec<Stored>>::new(), Vec::new());
    for parameter in parameters.into_iter().filter(|parameter| is_part(&parameter.path)) {
        let tensor = stored(parameter, &names);
        match CHANGE.iter().find_map(|end| tensor.name.strip_suffix(end)) {
            Some(module) => changes.entry(module.to_owned()).or_default().push(tensor),
            None => head.push(tensor),
        }
    }
    let path = folder.join("adapter_model.safetensors");
    if let ModelConfig::Deberta(config) = &config
        && config.model_type == DebertaVersion::V1
    {
        let unreadable = |error| Error::tensor(&path, "in_proj", error);
        changes = v1::merge_changes(changes, config.num_attention_heads).map_err(unreadable)?;
    }

    let adapter_config = adapter_config(&changes, &head, &config, settings);
    let mut tensors = head;
    for (module, change) in &changes {
        tensors.extend(change.iter().zip(PAIR).map(|(tensor, end)| renamed(tensor, &format!("{module}{end}"))));
    }
    tensors.iter_mut().for_each(|tensor| tensor.name.insert_str(0, PREFIX));
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let weights =
        Replacement::new(path.clone(), |file| write_tensors(&tensors, |_| DType::F32, file, &path).map(drop))?;
    let adapter_config = Replacement::of(folder.join("adapter_config.json"), adapter_config.as_bytes())?;
    let config = Replacement::of(folder.join("config.json"), config.to_json().as_bytes())?;
    weights.commit()?;
    adapter_config.commit()?;
    config.commit()
}

/// The text of `adapter_config.json`. Modules have their whole names, so that no other module is meant.
fn adapter_config(
    changes: &BTreeMap<String, Vec<Stored>>,
    head: &[Stored],
    config: &ModelConfig,
    settings: AdapterSettings<'_>,
) -> String {
    let AdapterSettings { base, rank, alpha } = settings;
    let saved: BTreeSet<_> = head.iter().filter_map(|tensor| names::bare(&tensor.name).split('.').next()).collect();
    let ranks: BTreeMap<_, _> = changes.iter().map(|(module, change)| (module, change[0].shape[0])).collect();
    let others: BTreeMap<_, _> = ranks.iter().filter(|(_, other)| **other != rank).collect();
    // The factor alpha / rank stays the same.
    let alphas: BTreeMap<_, _> =
        others.iter().map(|(module, other)| (module, alpha * **other as f64 / rank as f64)).collect();
    let architectures = &config.task().architectures;
    let task = TASKS.iter().find(|(_, model)| architectures.iter().any(|name| name.ends_with(model)));
    let value = json!({
        "alpha_pattern": alphas,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": saved,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": others,
        "target_modules": changes.keys().collect::<Vec<_>>(),
        "task_type": task.map(|(task, _)| task),
    });
    format!("{value:#}\n")
}
