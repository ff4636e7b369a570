//! One run in a process of its own: pretraining, then fine-tuning of the models of chosen steps.
//!
//! A run's folder holds `run.json` (the specification), what [`train`] leaves, and a folder `fine-tuned-N` for each checkpoint.
//! What is finished has a `training.json`, and is not done again.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write, stdout},
    path::{Path, PathBuf},
    process, slice,
    time::{Duration, Instant},
};

use burn::tensor::{Device, FloatDType};
use deberta_burn::{
    Error, ModelConfig, Result,
    checkpoint::{Checkpoint, HeadPolicy, LoadOptions},
    config::{ProblemType, TaskConfig},
    data::{
        LabelEncoder, LabelNotation, Target, TextColumns,
        corpus::{Corpus, CorpusOptions},
        masking::{Masking, MaskingOptions, MaskingStrategy},
        read_table,
    },
    device::{self, device},
    heads::{MaskedLm, SequenceClassification},
    tokenizer::{EncodeOptions, Text, Tokenizer},
    training::{
        Observer, Run, Task, TaskModel, TrainStepReport,
        replaced_token::{ReplacedToken, ReplacedTokenPretraining},
        tasks::{ClassificationTask, Collator, Examples, MaskedLmTask, ReplacedTokenTask, Splits},
        train,
    },
    write_file,
};
use serde_json::Value;

use crate::{
    architecture::Architecture,
    neighbours::Watched,
    protocol::{DOWNSTREAM_BATCH, RunSpec, TUNING_SEED},
    scale::scaled,
};

/// The specification of a run, in its folder.
pub const SPECIFICATION: &str = "run.json";
/// The record of what is finished, as [`train`] writes it.
const RECORD: &str = "training.json";
/// The error of a run that came to NaN, in place of a record. Only trials of a learning rate may: that it is too high is what
/// they are to find out.
const DIVERGED: &str = "diverged.txt";
/// Masked tokens do not depend on the run's seed: every evaluation of every run asks for the same ones.
const MASKING_SEED: u64 = 0;

/// The folder in which the model of a step is fine-tuned.
fn fine_tuned(run: &Path, step: usize) -> PathBuf {
    run.join(format!("fine-tuned-{step}"))
}

/// Whether there is nothing left to do for a run.
pub fn is_finished(folder: &Path, spec: &RunSpec) -> bool {
    let done = |folder: &Path| folder.join(RECORD).is_file();
    has_diverged(folder) || done(folder) && spec.checkpoints.iter().all(|step| done(&fine_tuned(folder, *step)))
}

/// Whether a run came to NaN.
pub fn has_diverged(folder: &Path) -> bool {
    folder.join(DIVERGED).is_file()
}

/// The accuracy on the downstream task of the model of a step.
///
/// # Errors
/// The record is not there, or is none.
pub fn downstream_accuracy(folder: &Path, step: usize) -> Result<f64> {
    let path = fine_tuned(folder, step).join(RECORD);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let record: Value = serde_json::from_str(&text).map_err(Error::json(path.display()))?;
    record["outcome"]["test"]["accuracy"]
        .as_f64()
        .ok_or_else(|| Error::file(path, "it has no accuracy: remove the run's folder, so that it is run again"))
}

/// Does what is left to do for the run in this folder.
///
/// # Errors
/// Whatever training reports.
pub fn work(folder: &Path) -> Result<()> {
    // A worker that has lost its parent may still be at this run, or another experiment in the same folder.
    let path = folder.join("lock");
    let lock = File::create(&path).map_err(Error::io("create", &path))?;
    lock.lock().map_err(Error::io("lock", &path))?;
    let path = folder.join(SPECIFICATION);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let spec: RunSpec = serde_json::from_str(&text).map_err(Error::json(path.display()))?;
    let tokenizer = Tokenizer::from_folder(&spec.data.tokenizer)?;
    let downstream = Downstream::read(&spec.data.downstream, &tokenizer, spec.settings.length)?;
    let device = device(&spec.settings.device)?.autodiff();
    let worker = Worker { folder, tokenizer, downstream, device, spec: &spec };
    let task = worker.downstream.task.clone();
    let mut config = match spec.variant.architecture(&spec.settings) {
        Architecture::MaskedLm(config, layout) => {
            worker.pretrain(&config, MaskingOptions::masked_lm, |texts, device| {
                Ok((Watched(texts), MaskedLm::new(&config, layout, device)?))
            })?;
            config
        }
        Architecture::ReplacedToken(discriminator) => {
            let config = discriminator.clone().into();
            worker.pretrain(&config, MaskingOptions::replaced_token, |texts, device| {
                let model = ReplacedTokenPretraining::new(&discriminator, ReplacedToken::default(), device)?;
                Ok((ReplacedTokenTask::new(texts), model))
            })?;
            config
        }
    };
    *config.task_mut() = task;
    worker.fine_tune(&config)
}

/// What both halves of a run need.
struct Worker<'a> {
    folder: &'a Path,
    spec: &'a RunSpec,
    tokenizer: Tokenizer,
    downstream: Downstream,
    device: Device,
}

impl Worker<'_> {
    /// Pretrains the model that `begin` makes, on the task that it makes of the masked texts.
    fn pretrain<T: Task>(
        &self,
        config: &ModelConfig,
        options: fn(MaskingStrategy, u64) -> MaskingOptions,
        begin: impl FnOnce(MaskedLmTask, &Device) -> Result<(T, TaskModel<T>)>,
    ) -> Result<()> {
        if self.folder.join(RECORD).exists() {
            return Ok(());
        }
        let RunSpec { settings, data, .. } = self.spec;
        let corpus = |path: &PathBuf| {
            let options = CorpusOptions { length: settings.length, mix_documents: false };
            Corpus::open_or_build(slice::from_ref(path), &self.tokenizer, &options, &data.cache, |_, _| {})
        };
        let splits = Splits { train: corpus(&data.train)?, valid: Some(corpus(&data.valid)?), test: None };
        let masking = Masking::new(&self.tokenizer, options(MaskingStrategy::Token, MASKING_SEED))?;
        let texts = MaskedLmTask::new(self.collator(config), masking, splits, settings.evaluated);
        device::seed(&self.device, self.spec.seed);
        let (task, model) = begin(texts, &self.device)?;
        let model = scaled(model, &settings.scales);
        let run = Run { snapshots: &self.spec.checkpoints, ..self.run(self.folder, config) };
        let training = settings.pretraining(self.spec.learning_rate, self.spec.seed);
        match train(&task, model, &training, &run, &mut self.reporter("pretraining".to_owned(), 0)) {
            Err(error @ Error::Diverged { .. }) if self.spec.seed >= TUNING_SEED => {
                write_file(self.folder.join(DIVERGED), error.to_string().as_bytes())
            }
            done => done.map(drop),
        }
    }

    /// Fine-tunes the model of each checkpoint that is left, and removes it.
    fn fine_tune(&self, config: &ModelConfig) -> Result<()> {
        let RunSpec { settings, checkpoints, seed, .. } = self.spec;
        let task = ClassificationTask::new(self.collator(config), self.downstream.examples.clone());
        for (number, step) in checkpoints.iter().enumerate() {
            let (output, snapshot) = (fine_tuned(self.folder, *step), self.folder.join(format!("step-{step}")));
            if !output.join(RECORD).exists() {
                device::seed(&self.device, *seed);
                let options = LoadOptions { dtype: FloatDType::F32, head: HeadPolicy::Initialise };
                let model = SequenceClassification::new(config, &self.device);
                let (model, _) = Checkpoint::open(&snapshot)?.load(model, &options)?;
                let run = self.run(&output, config);
                let phase = format!("fine-tuning {} of {}", number + 1, checkpoints.len());
                let before = settings.steps + number * self.fine_tuning_steps();
                train(&task, model, &settings.fine_tuning(*seed), &run, &mut self.reporter(phase, before))?;
            }
            // Their size, times checkpoints and runs, is worth more than they are.
            let weights = output.join("model.safetensors");
            gone(&weights, fs::remove_file(&weights))?;
            gone(&snapshot, fs::remove_dir_all(&snapshot))?;
        }
        Ok(())
    }

    fn collator(&self, config: &ModelConfig) -> Collator {
        Collator {
            config: config.clone(),
            pad_id: self.tokenizer.pad_id(),
            batch_tokens: 64 * self.spec.settings.length,
        }
    }

    fn run<'a>(&'a self, output: &'a Path, config: &'a ModelConfig) -> Run<'a> {
        Run {
            output,
            config,
            tokenizer: &self.tokenizer,
            resume: true,
            devices: slice::from_ref(&self.device),
            // `metrics.csv` gets a line an evaluation, and no others.
            report_every: usize::MAX,
            snapshots: &[],
            data: self.spec.data.digests.clone().into(),
        }
    }

    /// Steps of one fine-tuning.
    fn fine_tuning_steps(&self) -> usize {
        let batches = self.downstream.examples.train.encodings.len().div_ceil(DOWNSTREAM_BATCH);
        (self.spec.settings.downstream_epochs * batches as f64).ceil() as usize
    }

    fn reporter(&self, phase: String, before: usize) -> Reporter {
        let total = self.spec.settings.steps + self.spec.checkpoints.len() * self.fine_tuning_steps();
        Reporter { phase, before, total, last: None }
    }
}

/// The task that models are fine-tuned for.
struct Downstream {
    examples: Splits<Examples<Target>>,
    task: TaskConfig,
}

impl Downstream {
    /// Reads `train.tsv`, and `valid.tsv` and `test.tsv` as one: nothing is chosen by either, and the larger the set, the
    /// less the score owes to chance.
    fn read(folder: &Path, tokenizer: &Tokenizer, length: usize) -> Result<Self> {
        let columns = TextColumns { text: "text".into(), pair: None, label: Some("label".into()) };
        let [train, valid, test] = ["train.tsv", "valid.tsv", "test.tsv"].map(|name| folder.join(name));
        let rows = read_table(&train, &columns)?;
        let encoder =
            LabelEncoder::from_rows(ProblemType::SingleLabelClassification, &LabelNotation::default(), &rows, &train)?;
        let encode = |texts: Vec<&str>| {
            let texts: Vec<Text> = texts.into_iter().map(Text::from).collect();
            tokenizer.encode(&texts, &EncodeOptions { max_length: length, ..EncodeOptions::default() })
        };
        let examples = Examples {
            encodings: encode(rows.iter().map(|row| row.text.as_str()).collect())?,
            targets: encoder.training_targets(&rows, &train)?,
        };
        let (mut judged, mut targets) = (read_table(&valid, &columns)?, Vec::new());
        targets.extend(encoder.targets(&judged, &valid)?);
        let others = read_table(&test, &columns)?;
        targets.extend(encoder.targets(&others, &test)?);
        judged.extend(others);
        let judged = Examples { encodings: encode(judged.iter().map(|row| row.text.as_str()).collect())?, targets };
        let labels = encoder.labels().map(|labels| labels.names().to_vec()).unwrap_or_default();
        let problem_type = Some(ProblemType::SingleLabelClassification);
        Ok(Self {
            examples: Splits { train: examples, valid: None, test: Some(judged) },
            task: TaskConfig { labels, problem_type, ..TaskConfig::default() },
        })
    }
}

/// Tells the parent process how far the run is: lines of the share that is done, a tab, and what is being done.
struct Reporter {
    phase: String,
    /// Steps of the run before this phase, and of all its phases.
    before: usize,
    total: usize,
    last: Option<Instant>,
}

impl Observer for Reporter {
    fn step(&mut self, done: usize, _total: usize, report: &TrainStepReport) {
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_millis(500)) {
            return;
        }
        self.last = Some(Instant::now());
        let share = (self.before + done) as f64 / self.total as f64;
        // Without a parent there is nobody to train for; the run goes on when the program is started again.
        if writeln!(stdout(), "{share:.4}\t{}, loss {:.3}", self.phase, report.loss).is_err() {
            process::exit(1);
        }
    }
}

/// What removing a file or folder came to; that it was gone already is no error.
fn gone(path: &Path, removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
