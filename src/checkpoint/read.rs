//! Finding the weights of a folder and reading their names, types and shapes, but not their values.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use burn::{store::burn_pack::Tensor as Stored, tensor::DType};

use super::{
    adapter::Adapter,
    content::Content,
    mapped::MappedFile,
    names::{self, Spelling},
    quantised, v1, wrapping,
};
use crate::{
    DebertaConfig, Error, ModelConfig, Result,
    foreign::{self, Part},
    heads::MaskedLmLayout,
};

/// The files that may hold a folder's weights; the first that is there is read.
pub(super) const FILES: [&str; 6] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.fp16.safetensors",
    "model.bf16.safetensors",
];

/// A file of a checkpoint in this folder, if there is one.
pub(crate) fn file_in(folder: &Path) -> Option<PathBuf> {
    FILES
        .into_iter()
        .chain(["config.json", "adapter_config.json"])
        .map(|file| folder.join(file))
        .find(|path| path.exists())
}

/// The weights of a folder: names, element types and shapes. Values are read when they are needed.
///
/// Safetensors files are mapped into memory and stay mapped as long as the checkpoint, or a module on a CPU device that
/// was loaded from it, is alive. Meanwhile, do not overwrite such a file in place; replace it, as
/// [`write`](super::write()) does.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    pub(super) tensors: BTreeMap<String, Stored>,
    skipped: Vec<String>,
    files: Vec<MappedFile>,
    /// The configuration, where it is not that of the folder: an adapter was merged, or experts were made.
    pub(super) changed: Option<ModelConfig>,
}

impl Checkpoint {
    /// Opens the weights in `folder`: `model.safetensors`, else `model.safetensors.index.json` and its shards, else
    /// `pytorch_model.bin` (of any version of PyTorch), else its index and shards, else `model.fp16.safetensors` or
    /// `model.bf16.safetensors`. A v1 checkpoint is converted to the
    /// layout of v2; the number of attention heads is read from `config.json`. Prefixes that training put in front of
    /// the model's own keys (`module.`, `_orig_mod.`, `model.`, `state_dict.` and so on) are removed.
    ///
    /// # Errors
    /// - [`Error::Missing`] if none of the files is there, or one that an index names is not;
    /// - [`Error::Unsupported`] if the folder is made for other software;
    /// - [`Error::Checkpoint`] and [`Error::Tensor`] if a file or a tensor is damaged or incomplete;
    /// - [`Error::Io`] if a file cannot be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::read(folder.as_ref(), None)
    }

    /// The same with a LoRA adapter in the layout of PEFT (`adapter_config.json`, `adapter_model.safetensors`) merged into
    /// the weights: W + s B A for each matrix that it changes, and its own biases and modules (`bias`, `modules_to_save`)
    /// in the place of the base model's.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::Unsupported`] for other adapters than LoRA and rsLoRA; [`Error::Tensor`] if the
    /// adapter does not fit the weights; [`Error::Checkpoint`] if it is a classifier's whose pooler was not saved.
    pub fn open_with_adapter(folder: impl AsRef<Path>, adapter: impl AsRef<Path>) -> Result<Self> {
        Self::read(folder.as_ref(), Some(Adapter::open(adapter.as_ref())?))
    }

    fn read(folder: &Path, adapter: Option<Adapter>) -> Result<Self> {
        let path = FILES
            .iter()
            .map(|file| folder.join(file))
            .find(|path| path.exists())
            .ok_or_else(|| foreign::not_found(folder, Part::Weights, NO_WEIGHTS, &FILES.join(", ")))?;
        let Content { mut tensors, skipped, files } = Content::of(&path)?;
        let mut keys: Vec<_> = tensors.iter_mut().map(|tensor| &mut tensor.name).collect();
        wrapping::unwrap(&mut keys).map_err(|problem| Error::checkpoint(&path, problem))?;
        for tensor in &mut tensors {
            v1::rename(&mut tensor.name, names::RENAMED.into_iter());
        }
        let mut tensors =
            quantised::restore(tensors).map_err(|(name, problem)| Error::tensor(&path, &name, problem))?;
        let changed = adapter.map(|adapter| adapter.merge(folder, &mut tensors)).transpose()?;
        if tensors.iter().any(|tensor| v1::is_packed(&tensor.name)) {
            let ModelConfig::Deberta(DebertaConfig { num_attention_heads, .. }) = ModelConfig::from_folder(folder)?
            else {
                return Err(Error::checkpoint(
                    &path,
                    "the weights are those of DeBERTa v1, config.json is for RoBERTa",
                ));
            };
            tensors = v1::split(tensors, num_attention_heads).map_err(|problem| Error::checkpoint(&path, problem))?;
        }
        let mut by_name = BTreeMap::new();
        for tensor in tensors {
            if let Some(twin) = by_name.insert(tensor.name.clone(), tensor) {
                let problem = format!(
                    "two tensors stand for `{}`, in an older and a newer spelling or with and without a prefix; remove \
                     one",
                    twin.name
                );
                return Err(Error::Tensor { path, name: twin.name, problem });
            }
        }
        Ok(Self { folder: folder.to_owned(), tensors: by_name, skipped, files, changed })
    }

    /// The folder it was opened from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration: that of the folder, and for an adapter that of the adapter's folder, if it has one. Otherwise an
    /// adapter's task and number of labels take the place of the folder's.
    ///
    /// # Errors
    /// As [`ModelConfig::from_folder`].
    pub fn config(&self) -> Result<ModelConfig> {
        self.changed.clone().map_or_else(|| ModelConfig::from_folder(&self.folder), Ok)
    }

    /// Key, element type and shape of every tensor, in the order of the keys.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, DType, &[usize])> {
        self.tensors.values().map(|tensor| (tensor.name.as_str(), tensor.dtype, &tensor.shape[..]))
    }

    /// Whether there is a tensor of this key.
    pub fn contains(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// The number of token embeddings, if it has any.
    pub(crate) fn vocabulary(&self) -> Option<usize> {
        let embeddings =
            self.tensors.values().find(|tensor| tensor.name.ends_with("embeddings.word_embeddings.weight"));
        embeddings.and_then(|tensor| tensor.shape.first().copied())
    }

    /// The masked language modelling head of the checkpoint, if it has one that can be used. The discriminators
    /// among the v3 checkpoints have an `lm_predictions` head that belongs to their generator and does not fit the
    /// encoder in the file.
    pub fn masked_lm_layout(&self) -> Option<MaskedLmLayout> {
        let has = |part: &str| self.keys().any(|key| key.contains(part));
        match Spelling::of(self.keys()) {
            Spelling::Roberta => return has("lm_head.").then_some(MaskedLmLayout::LastLayer),
            Spelling::LegacyDeberta => return Some(MaskedLmLayout::Legacy),
            Spelling::Deberta => {}
        }
        if !has("lm_predictions.lm_head.") || has("mask_predictions.") {
            return None;
        }
        // Beside the head, only the enhanced mask decoder needs absolute positions; transformers drops them.
        match has("embeddings.position_embeddings.") {
            true => Some(MaskedLmLayout::EnhancedMaskDecoder),
            false => Some(MaskedLmLayout::LastLayer),
        }
    }

    /// Whether this is a checkpoint for a task, by the end of transformers' name for such a model
    /// (`ForTokenClassification`, for one). `architectures` decides. But its names may be left over from the model that
    /// training began with: then it counts which head has weights in the file.
    pub(crate) fn is_for(&self, task: &str, architectures: &[String]) -> bool {
        let is_named = |task: &str| architectures.iter().any(|name| name.ends_with(task));
        let has_head = |task: &str| names::has_head(task, |key| self.contains(key));
        architectures.is_empty()
            || is_named(task)
            || has_head(task) && !names::fine_tuned().any(|other| is_named(other) && has_head(other))
    }

    pub(super) fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.tensors.values()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Stored> {
        self.tensors.get(key)
    }

    /// Releases a tensor's bytes in a mapped file after they have been copied.
    pub(super) fn release(&self, bytes: Range<*const u8>) {
        self.files.iter().for_each(|file| file.release(&bytes));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

/// Why a folder cannot be opened, if its files do not say what it is.
pub(super) const NO_WEIGHTS: &str = "there are no weights in it";
