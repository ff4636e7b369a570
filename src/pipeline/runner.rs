//! What all tasks share: opening a checkpoint folder, and running any number of inputs through a head.

use std::{path::Path, sync::Arc};

use burn::{
    Tensor,
    module::Module,
    tensor::{Device, FloatDType},
};

use crate::{
    Error, Result,
    batch::{Batch, Encoding, Padding, batches_by_length},
    checkpoint::{Checkpoint, LoadOptions, LoadReport},
    config::ModelConfig,
    model::input::ModelInput,
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
};

/// Told after each batch how many sequences are done, of how many. A long text that is cut into windows counts as several.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// How a task runs its model.
#[derive(Clone)]
pub struct PipelineOptions {
    /// Where the model lives.
    pub device: Device,
    /// The type of its weights and arithmetic: f32, f16 or bf16, as far as the device computes in it.
    pub dtype: FloatDType,
    /// Most sequences in one batch, at least 1.
    pub batch_size: usize,
    /// Most tokens of one sequence, special tokens included; what the model was trained with if none.
    pub max_length: Option<usize>,
    /// Told how far a call is, if there is one to tell.
    pub progress: Option<Progress>,
}

impl PipelineOptions {
    /// f32, batches of 32, the model's own length, no progress.
    pub fn new(device: Device) -> Self {
        Self { device, dtype: FloatDType::F32, batch_size: 32, max_length: None, progress: None }
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
        let max_length = options.max_length.unwrap_or(config.trained_length());
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

    /// Refuses a checkpoint whose `architectures` name other tasks only; one that names none is for its tensors to decide.
    pub fn expect_architecture(&self, task: &str) -> Result<()> {
        let named = &self.config.task().architectures;
        if named.is_empty() || named.iter().any(|name| name.ends_with(task)) {
            return Ok(());
        }
        let problem = format!("config.json says that this is a {}; this task needs a …{task}", named.join(", "));
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

    /// Runs `compute` on batches of similar length; it returns one value for each of the batch's sequences. The values come
    /// back in the order of `encodings`.
    ///
    /// # Errors
    /// No sequence at all, or one that the model cannot take.
    pub fn run<T>(
        &self,
        encodings: &[Encoding],
        mut compute: impl FnMut(ModelInput, &[&Encoding]) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        if encodings.is_empty() {
            return Err(Error::input("texts", "there are none, expected at least one"));
        }
        let mut values: Vec<Option<T>> = encodings.iter().map(|_| None).collect();
        let mut done = 0;
        for indices in batches_by_length(encodings, self.options.batch_size)? {
            let rows: Vec<&Encoding> = indices.iter().map(|&index| &encodings[index]).collect();
            let batch = Batch::collate(rows.iter().copied(), self.tokenizer.pad_id(), Padding::Longest)?;
            let computed = compute(batch.to_input(&self.config, &self.options.device)?, &rows)?;
            done += indices.len();
            for (index, value) in indices.into_iter().zip(computed) {
                values[index] = Some(value);
            }
            if let Some(progress) = &self.options.progress {
                progress(done, encodings.len());
            }
        }
        Ok(values.into_iter().map(|value| value.expect("every sequence is in one batch")).collect())
    }
}

/// Makes the head `$head` on the backbone that the configuration names, loads it and prepares it: a `Box<dyn Head<Output = ..>>`.
macro_rules! load_head {
    ($runner:expr, $head:ident) => {{
        let head: Box<dyn $crate::heads::Head<Output = _>> = match $runner.config.clone() {
            $crate::ModelConfig::Deberta(config) => {
                let head = $runner.load($head::<$crate::DebertaModel>::new(&config, $runner.device()))?;
                Box::new($crate::model::inference::Prepared::new(head))
            }
            $crate::ModelConfig::Roberta(config) => {
                let head = $runner.load($head::<$crate::RobertaModel>::new(&config, $runner.device()))?;
                Box::new($crate::model::inference::Prepared::new(head))
            }
        };
        head
    }};
}
pub(super) use load_head;

/// The values of a tensor, row after row, as f32.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| Error::Model(format!("the result cannot be read back from the device: {error}")))
}

/// The rows of a matrix, as f32.
pub(super) fn rows(tensor: Tensor<2>) -> Result<Vec<Vec<f32>>> {
    let [_, width] = tensor.dims();
    Ok(values(tensor)?.chunks(width).map(<[f32]>::to_vec).collect())
}

/// The slice of a text between two character offsets.
pub(super) fn characters(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}
