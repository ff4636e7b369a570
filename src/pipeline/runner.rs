//! What all tasks share: opening a checkpoint folder, and the ways into and out of its model.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{module::Module, tensor::Device};

use crate::{
    Error, Result,
    batch::{Batch, Encoding, Padding, Truncated},
    checkpoint::{Checkpoint, LoadOptions, LoadReport, Pretrained},
    config::ModelConfig,
    model::{
        Precision,
        inference::{InferenceModel, Prepared},
        input::ModelInput,
    },
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation, TruncationSide},
};

/// Called after each batch with the number of sequences that are done, and of all. A long text that is cut into windows
/// counts as several.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Called once in a call if texts were too long and had to be cut.
pub type TruncationListener = Arc<dyn Fn(Truncated) + Send + Sync>;

/// How a task runs its model.
#[derive(Clone)]
pub struct PipelineOptions {
    /// Where the model lives.
    pub device: Device,
    /// The folder of a LoRA adapter in the layout of PEFT, to be merged into the weights; see
    /// [`Checkpoint::open_with_adapter`].
    pub adapter: Option<PathBuf>,
    /// The numbers that it computes with, if the device supports them.
    pub precision: Precision,
    /// Most tokens of one batch, at least 1; a longer sequence is a batch of its own.
    pub batch_tokens: usize,
    /// Largest number of tokens of one sequence, special tokens included. If none, it is the length in the tokenizer's
    /// settings, for an [`Embedder`](super::Embedder) that in `sentence_bert_config.json`, if there is one (but not more than
    /// the model's absolute positions allow), otherwise the length that the model was trained with.
    pub max_length: Option<usize>,
    /// The side on which a text that is too long loses tokens. If none, it is that of the tokenizer's settings.
    pub truncation_side: Option<TruncationSide>,
    /// Called to report progress.
    pub progress: Option<Progress>,
    /// Called before a call goes on with texts that were cut.
    pub truncated: TruncationListener,
}

impl PipelineOptions {
    /// f32, batches of 4,096 tokens, the model's own length and the tokenizer's side of truncation, no progress, a warning to `tracing` if texts are cut.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            adapter: None,
            precision: Precision::F32,
            batch_tokens: 4096,
            max_length: None,
            truncation_side: None,
            progress: None,
            truncated: Arc::new(|truncated| tracing::warn!("{truncated}")),
        }
    }
}

/// The parts of an opened folder.
pub(super) struct Parts {
    /// The configuration, of a model around an encoder that of the encoder.
    pub config: ModelConfig,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The weights' files.
    pub checkpoint: Checkpoint,
    /// Largest number of tokens of one sequence.
    pub max_length: usize,
}

/// An opened checkpoint folder, without its model: what the pipelines of all tasks share.
pub struct Runner {
    config: ModelConfig,
    tokenizer: Tokenizer,
    checkpoint: Checkpoint,
    max_length: usize,
    report: LoadReport,
    options: PipelineOptions,
}

impl Runner {
    /// Opens a folder and makes its model ready for inference.
    ///
    /// # Errors
    /// A missing or damaged file, a maximal length beyond the model's absolute positions, a checkpoint of another task or
    /// without the head.
    pub(super) fn open<M: Pretrained + InferenceModel>(
        folder: &Path,
        options: PipelineOptions,
    ) -> Result<(Self, Prepared<M>)> {
        Self::open_with_length(folder, None, options)
    }

    /// The same with the largest number of tokens that the folder has for this task, in the place of that in the tokenizer's
    /// settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn open_with_length<M: Pretrained + InferenceModel>(
        folder: &Path,
        length: Option<usize>,
        options: PipelineOptions,
    ) -> Result<(Self, Prepared<M>)> {
        let mut config = ModelConfig::from_folder(folder)?;
        let mut tokenizer = Tokenizer::from_folder(folder)?;
        if let Some(side) = options.truncation_side {
            tokenizer.set_truncation_side(side);
        }
        let checkpoint = match &options.adapter {
            Some(adapter) => Checkpoint::open_with_adapter(folder, adapter)?,
            None => Checkpoint::open(folder)?,
        };
        if options.adapter.is_some() {
            config = checkpoint.config()?;
        }
        let length = length.or(tokenizer.model_max_length());
        let max_length = options.max_length.unwrap_or_else(|| default_length(&config, length));
        let load = |config: &ModelConfig, checkpoint: &Checkpoint, options: &LoadOptions, device: &Device| {
            checkpoint.model(config, options, device)
        };
        Self::with_model(Parts { config, tokenizer, checkpoint, max_length }, options, load)
    }

    /// The same for a `kind` of model around an encoder, which `new` makes; adapters of such models are not read.
    ///
    /// # Errors
    /// An adapter, or as [`open`](Self::open).
    pub(super) fn around_encoder<M: Module + InferenceModel>(
        kind: &str,
        parts: Parts,
        options: PipelineOptions,
        new: impl FnOnce(&Device) -> M,
    ) -> Result<(Self, Prepared<M>)> {
        if let Some(adapter) = &options.adapter {
            let problem =
                format!("adapters of {kind} models are not supported; merge it into the model with PEFT first");
            return Err(Error::unsupported(format!("adapter {}", adapter.display()), problem));
        }
        Self::with_model(parts, options, |_, checkpoint, options, device| checkpoint.load(new(device), options))
    }

    /// Puts the parts of a folder together, and makes the model that `load` reads ready for inference.
    fn with_model<M: InferenceModel>(
        Parts { config, tokenizer, checkpoint, max_length }: Parts,
        options: PipelineOptions,
        load: impl FnOnce(&ModelConfig, &Checkpoint, &LoadOptions, &Device) -> Result<(M, LoadReport)>,
    ) -> Result<(Self, Prepared<M>)> {
        let mut runner = Self { config, tokenizer, checkpoint, max_length, report: LoadReport::default(), options };
        runner.check_length(runner.config.max_length())?;
        let PipelineOptions { device, precision, .. } = &runner.options;
        let options = LoadOptions { dtype: precision.load_dtype(device)?, ..LoadOptions::default() };
        let (model, report) = load(&runner.config, &runner.checkpoint, &options, device)?;
        let model = Prepared::with_precision(model, *precision)?;
        runner.report = report;
        Ok((runner, model))
    }

    /// Refuses a maximal length above what the model can take.
    pub(super) fn check_length(&self, limit: Option<usize>) -> Result<()> {
        match limit.filter(|limit| self.max_length > *limit) {
            Some(limit) => {
                let problem = format!("it is {}, but the model's absolute positions end at {limit}", self.max_length);
                Err(Error::setting("max length", problem))
            }
            None => Ok(()),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Largest number of tokens of one sequence, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// How the model is run.
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// The weights' files.
    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Turns texts into token ids; with a stride, those that are too long become several windows.
    ///
    /// # Errors
    /// A text that the truncation cannot shorten enough; the message numbers the texts from 0.
    pub(super) fn encode(
        &self,
        texts: &[Text<'_>],
        truncation: Truncation,
        stride: Option<usize>,
    ) -> Result<Vec<Encoding>> {
        let options = EncodeOptions { max_length: self.max_length, truncation, stride, ..EncodeOptions::default() };
        self.tokenizer.encode(texts, &options)
    }

    /// Some sequences as the model's input.
    ///
    /// # Errors
    /// No sequence at all, or one that the model cannot take.
    pub(super) fn input(&self, batch: &[&Encoding]) -> Result<ModelInput> {
        let batch = Batch::collate(batch.iter().copied(), self.tokenizer.pad_id(), Padding::Longest)?;
        batch.to_input(&self.config, &self.options.device)
    }

    /// Refuses numbers that are not finite: they would become a wrong answer, or none.
    pub(super) fn check_finite(&self, sequences: &[Encoding], rows: &[Vec<f32>]) -> Result<()> {
        let find = |(sequence, row): (&Encoding, &Vec<f32>)| {
            row.iter().find(|score| !score.is_finite()).map(|value| (sequence.text, *value))
        };
        let Some((index, value)) = sequences.iter().zip(rows).find_map(find) else { return Ok(()) };
        let advice = match self.options.precision {
            Precision::F16 => {
                "f16 ends at 65504, and this model exceeds it: compute in bf16 or f32 (`--precision bf16|f32`)"
            }
            Precision::Bf16 | Precision::I16 | Precision::Int8(_) => {
                "see whether it is in f32 (`--precision f32`); if not, the checkpoint's weights are damaged"
            }
            Precision::F32 => "the checkpoint's weights are damaged, or its training diverged",
        };
        let problem = format!("the model's answer holds {value}, expected finite numbers; {advice}");
        Err(Error::NotFinite { index: Some(index), subject: format!("text {index}"), problem })
    }
}

/// The largest number of tokens of one sequence, if the caller sets no limit: that of the folder, as far as the model allows it.
fn default_length(config: &ModelConfig, length: Option<usize>) -> usize {
    let length = length.unwrap_or(config.trained_length());
    config.max_length().map_or(length, |limit| length.min(limit))
}

/// The slice of a text between two character offsets.
pub(super) fn characters(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}
