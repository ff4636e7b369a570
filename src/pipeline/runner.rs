//! What all tasks share: opening a checkpoint folder, and running any number of inputs through a head.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;

use crate::{
    Error, Result,
    batch::{Batch, Encoding, Padding, Truncated, in_batches},
    checkpoint::{Checkpoint, LoadOptions, LoadReport, Pretrained},
    config::ModelConfig,
    model::{
        Precision,
        inference::{InferenceModel, Prepared},
        input::ModelInput,
    },
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
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
    /// Largest number of sequences in one batch, at least 1.
    pub batch_size: usize,
    /// Largest number of tokens of one sequence, special tokens included. If none, it is the length in the tokenizer's
    /// settings (but not more than the model's absolute positions allow), otherwise the length that the model was
    /// trained with.
    pub max_length: Option<usize>,
    /// Called to report progress.
    pub progress: Option<Progress>,
    /// Called before a call goes on with texts that were cut.
    pub truncated: TruncationListener,
}

impl PipelineOptions {
    /// f32, batches of 32, the model's own length, no progress, a warning to `tracing` if texts are cut.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            adapter: None,
            precision: Precision::F32,
            batch_size: 32,
            max_length: None,
            progress: None,
            truncated: Arc::new(|truncated| tracing::warn!("{truncated}")),
        }
    }
}

/// An opened checkpoint folder.
pub(super) struct Runner {
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    pub checkpoint: Checkpoint,
    pub max_length: usize,
    pub report: LoadReport,
    options: PipelineOptions,
}

impl Runner {
    /// Opens a folder and makes its model ready for inference.
    ///
    /// # Errors
    /// A missing or damaged file, a maximal length beyond the model's absolute positions, a checkpoint of another task or
    /// without the head.
    pub fn open<M: Pretrained + InferenceModel>(
        folder: &Path,
        options: PipelineOptions,
    ) -> Result<(Self, Prepared<M>)> {
        let mut config = ModelConfig::from_folder(folder)?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let checkpoint = match &options.adapter {
            Some(adapter) => Checkpoint::open_with_adapter(folder, adapter)?,
            None => Checkpoint::open(folder)?,
        };
        if options.adapter.is_some() {
            config = checkpoint.config()?;
        }
        let max_length = options.max_length.unwrap_or_else(|| default_length(&config, &tokenizer));
        let mut runner = Self { config, tokenizer, checkpoint, max_length, report: LoadReport::default(), options };
        runner.check_length(runner.config.max_length())?;
        let PipelineOptions { device, precision, .. } = &runner.options;
        let options = LoadOptions { dtype: precision.load_dtype(device)?, ..LoadOptions::default() };
        let (model, report) = runner.checkpoint.model(&runner.config, &options, device)?;
        let model = Prepared::with_precision(model, *precision)?;
        runner.report = report;
        Ok((runner, model))
    }

    /// Refuses a maximal length above what the model can take.
    pub fn check_length(&self, limit: Option<usize>) -> Result<()> {
        match limit.filter(|limit| self.max_length > *limit) {
            Some(limit) => {
                let problem = format!("it is {}, but the model's absolute positions end at {limit}", self.max_length);
                Err(Error::setting("max length", problem))
            }
            None => Ok(()),
        }
    }

    /// Turns texts into token ids; with a stride, those that are too long become several windows.
    ///
    /// # Errors
    /// A text that the truncation cannot shorten enough; the message numbers the texts from 0.
    pub fn encode(&self, texts: &[Text<'_>], truncation: Truncation, stride: Option<usize>) -> Result<Vec<Encoding>> {
        let options = EncodeOptions { max_length: self.max_length, truncation, stride, ..EncodeOptions::default() };
        self.tokenizer.encode(texts, &options)
    }

    /// Runs `forward` on batches of similar length. It returns the scores of each sequence of the batch, without
    /// padding; `decode` turns the scores of a sequence into a value. The values are returned in the order of
    /// `encodings`.
    ///
    /// # Errors
    /// No sequence at all, one that the model cannot take, or scores that are not finite.
    pub fn run<T>(
        &self,
        encodings: &[Encoding],
        mut forward: impl FnMut(ModelInput, &[&Encoding]) -> Result<Vec<Vec<f32>>>,
        mut decode: impl FnMut(&Encoding, Vec<f32>) -> T,
    ) -> Result<Vec<T>> {
        if encodings.is_empty() {
            return Err(Error::input("texts", "there are none, expected at least one"));
        }
        if let Some(truncated) = Truncated::count(encodings, self.max_length) {
            (self.options.truncated)(truncated);
        }
        let mut done = 0;
        in_batches(encodings, self.options.batch_size, |indices| {
            let batch: Vec<&Encoding> = indices.iter().map(|&index| &encodings[index]).collect();
            let padded = Batch::collate(batch.iter().copied(), self.tokenizer.pad_id(), Padding::Longest)?;
            let scores = forward(padded.to_input(&self.config, &self.options.device)?, &batch)?;
            let decoded = batch.into_iter().zip(scores).map(|(encoding, scores)| {
                self.check_finite(encoding.text, &scores)?;
                Ok(decode(encoding, scores))
            });
            let decoded = decoded.collect::<Result<Vec<T>>>()?;
            done += indices.len();
            if let Some(progress) = &self.options.progress {
                progress(done, encodings.len());
            }
            Ok(decoded)
        })
    }

    /// Refuses scores that are not finite: they would become a wrong answer, or none.
    fn check_finite(&self, index: usize, scores: &[f32]) -> Result<()> {
        let Some(value) = scores.iter().find(|score| !score.is_finite()) else { return Ok(()) };
        let advice = match self.options.precision {
            Precision::F16 => {
                "f16 ends at 65504, and this model exceeds it: compute in bf16 or f32 (`--dtype bf16|f32`)"
            }
            Precision::Bf16 | Precision::I16 | Precision::Int8(_) => {
                "see whether it is in f32 (`--dtype f32`); if not, the checkpoint's weights are damaged"
            }
            Precision::F32 => "the checkpoint's weights are damaged, or its training diverged",
        };
        let problem = format!("the model's answer holds {value}, expected finite numbers; {advice}");
        Err(Error::NotFinite { index: Some(index), subject: format!("text {index}"), problem })
    }
}

/// The largest number of tokens of one sequence, if the caller sets no limit.
fn default_length(config: &ModelConfig, tokenizer: &Tokenizer) -> usize {
    let length = tokenizer.model_max_length().unwrap_or(config.trained_length());
    config.max_length().map_or(length, |limit| length.min(limit))
}

/// The slice of a text between two character offsets.
pub(super) fn characters(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}
