//! What all tasks share: opening a checkpoint folder, and running any number of inputs through a head.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, FloatDType},
};

use crate::{
    Error, Result,
    batch::{Batch, Encoding, Padding, Truncated, in_batches},
    checkpoint::{Checkpoint, LoadOptions, LoadReport},
    config::ModelConfig,
    foreign::{self, Part},
    model::{
        inference::{InferenceModel, Prepared},
        input::ModelInput,
    },
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
};

/// Told after each batch how many sequences are done, of how many. A long text that is cut into windows counts as several.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Told once a call if texts are too long and had to be cut.
pub type TruncationListener = Arc<dyn Fn(Truncated) + Send + Sync>;

/// How a task runs its model.
#[derive(Clone)]
pub struct PipelineOptions {
    /// Where the model lives.
    pub device: Device,
    /// The type of its weights and arithmetic: f32, f16 or bf16, as far as the device computes in it.
    pub dtype: FloatDType,
    /// Most sequences in one batch, at least 1.
    pub batch_size: usize,
    /// Most tokens of one sequence, special tokens included; if none, what the tokenizer's settings say (as far as the model's
    /// absolute positions reach), or else what the model was trained with.
    pub max_length: Option<usize>,
    /// Told how far a call is, if there is one to tell.
    pub progress: Option<Progress>,
    /// Told before a call goes on with texts that were cut.
    pub truncated: TruncationListener,
}

impl PipelineOptions {
    /// f32, batches of 32, the model's own length, no progress, a warning to `tracing` if texts are cut.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            dtype: FloatDType::F32,
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
    /// Reads configuration and tokenizer and opens the weights; [`load`](Self::load) is next.
    ///
    /// # Errors
    /// A missing or damaged file, or a maximal length that the model's absolute positions do not reach.
    pub fn open(folder: &Path, options: PipelineOptions) -> Result<Self> {
        let config = ModelConfig::from_folder(folder)?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        let max_length = options.max_length.unwrap_or_else(|| default_length(&config, &tokenizer));
        let runner = Self { config, tokenizer, checkpoint, max_length, report: LoadReport::default(), options };
        runner.check_length(runner.config.max_length())?;
        Ok(runner)
    }

    /// Where a head is to be made.
    pub fn device(&self) -> &Device {
        &self.options.device
    }

    /// Fills a head with the checkpoint's weights, all of which must be there.
    pub fn load<M: Module>(&mut self, head: M) -> Result<M> {
        let options = LoadOptions { dtype: self.options.dtype, ..LoadOptions::default() };
        let (head, report) = self.checkpoint.load(head, &options)?;
        self.report = report;
        Ok(head)
    }

    /// The same, made ready for inference.
    pub fn prepare<M: InferenceModel + Module>(&mut self, head: M) -> Result<Prepared<M>> {
        self.load(head).map(Prepared::new)
    }

    /// Refuses a checkpoint of another task.
    pub fn expect_architecture(&self, task: &str) -> Result<()> {
        let named = &self.config.task().architectures;
        if self.checkpoint.is_for(task, named) {
            return Ok(());
        }
        let problem = match foreign::explain(self.checkpoint.folder(), Part::Head) {
            Some(reason) => reason.to_owned(),
            None => format!("config.json says that this is a {}; this task needs a …{task}", named.join(", ")),
        };
        Err(Error::checkpoint(self.checkpoint.folder(), problem))
    }

    /// Refuses a maximal length above what the model can take.
    pub fn check_length(&self, limit: Option<usize>) -> Result<()> {
        match limit.filter(|limit| self.max_length > *limit) {
            Some(limit) => {
                let problem = format!("it is {}, but the model's absolute positions end at {limit}", self.max_length);
                Err(Error::input("max length", problem))
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

    /// Runs `forward` on batches of similar length; it returns the scores of each of the batch's sequences, padding left out,
    /// which `decode` turns into a value at once. The values come back in the order of `encodings`.
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

    /// Refuses scores that would come out as no answer at all, or as a wrong one.
    fn check_finite(&self, index: usize, scores: &[f32]) -> Result<()> {
        let Some(value) = scores.iter().find(|score| !score.is_finite()) else { return Ok(()) };
        let advice = match self.options.dtype {
            FloatDType::F16 => {
                "f16 ends at 65504, and this model exceeds it: compute in bf16 or f32 (`--dtype bf16|f32`)"
            }
            FloatDType::BF16 => {
                "see whether it is in f32 (`--dtype f32`); if not, the checkpoint's weights are damaged"
            }
            _ => "the checkpoint's weights are damaged, or its training diverged",
        };
        let problem = format!("the model's answer holds {value}, expected finite numbers; {advice}");
        Err(Error::NotFinite { index, subject: format!("text {index}"), problem })
    }
}

/// The most tokens of one sequence where the caller sets no limit.
fn default_length(config: &ModelConfig, tokenizer: &Tokenizer) -> usize {
    let length = tokenizer.model_max_length().unwrap_or(config.trained_length());
    config.max_length().map_or(length, |limit| length.min(limit))
}

/// Makes the head `$head` on the backbone that the configuration names, loads it and prepares it: a `Box<dyn InferenceModel<Output = ..>>`.
macro_rules! load_head {
    ($runner:expr, $head:ident) => {{
        let head: Box<dyn $crate::heads::InferenceModel<Output = _>> = match $runner.config.clone() {
            $crate::ModelConfig::Deberta(config) => {
                Box::new($runner.prepare($head::<$crate::DebertaModel>::new(&config, $runner.device()))?)
            }
            $crate::ModelConfig::Roberta(config) => {
                Box::new($runner.prepare($head::<$crate::RobertaModel>::new(&config, $runner.device()))?)
            }
        };
        head
    }};
}
pub(super) use load_head;

/// The slice of a text between two character offsets.
pub(super) fn characters(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}
