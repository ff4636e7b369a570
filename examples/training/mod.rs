//! What the fine-tuning examples share: flags, data splits, the model of either family, progress, the final table.

#[path = "../common/allocator.rs"]
mod allocator;
#[path = "../common/compute_type.rs"]
mod compute_type;
mod flags;
mod progress;
#[path = "../common/truncation.rs"]
mod truncation;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use burn::{module::Module, tensor::Device};
use deberta_burn::{
    Error, ModelConfig, Result,
    checkpoint::{Checkpoint, HeadPolicy, LoadOptions, LoadReport, locate},
    config::Configuration,
    data::{Part, file_digest},
    device,
    tokenizer::Tokenizer,
    training::{
        Run, Task, TaskModel, TrainingSettings,
        tasks::{Collator, Splits},
        train,
    },
};
use serde_json::{Map, Value, json};

pub use flags::TrainingFlags;
use progress::Progress;

/// Runs an example; errors become one line and exit code 1.
pub fn run(example: impl FnOnce() -> Result<()>) -> ExitCode {
    allocator::keep_freed_memory();
    match example() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The checkpoint to start from, and everything the flags say.
pub struct Session<C = ModelConfig> {
    pub flags: TrainingFlags,
    pub config: C,
    pub tokenizer: Tokenizer,
    pub max_length: usize,
    pub device: Device,
    devices: Vec<Device>,
    pub settings: TrainingSettings,
    /// Where the weights are; none for a fresh model.
    pub folder: Option<PathBuf>,
    /// What else makes the run what it is: another value, and it is not resumed.
    pub data: Map<String, Value>,
}

impl Session {
    /// Reads flags, settings file and recipe, and opens the checkpoint, unless a model `from_scratch` is wanted: its
    /// configuration and tokenizer. `output` is the folder if the flags name none.
    #[allow(dead_code, reason = "each example opens models of one kind")]
    pub fn open(flags: TrainingFlags, output: &str, from_scratch: Option<(ModelConfig, Tokenizer)>) -> Result<Self> {
        let flags = flags.resolve(output, from_scratch.is_some())?;
        let (settings, devices) = flags.check()?;
        let (folder, mut config, mut tokenizer) = match from_scratch {
            Some((config, tokenizer)) => (None, config, tokenizer),
            None => {
                let folder = folder(&flags)?;
                let (config, tokenizer) = (ModelConfig::from_folder(&folder)?, Tokenizer::from_folder(&folder)?);
                (Some(folder), config, tokenizer)
            }
        };
        if let Some(side) = flags.truncation {
            tokenizer.set_truncation_side(side.into());
        }
        if let Some(dropout) = flags.task_dropout()? {
            config.set_classifier_dropout(dropout);
        }
        Self::begin(flags, settings, devices, folder, config, tokenizer, 128)
    }
}

impl<C: Configuration> Session<C> {
    /// The same for a model around an encoder, which `open` reads from its folder. The longest input is by default what the
    /// encoder was trained with.
    #[allow(dead_code, reason = "each example opens models of one kind")]
    pub fn around_encoder(
        flags: TrainingFlags,
        output: &str,
        open: impl FnOnce(&TrainingFlags, &Path) -> Result<(C, Tokenizer)>,
    ) -> Result<Self> {
        let flags = flags.resolve(output, false)?;
        let (settings, devices) = flags.check()?;
        let folder = folder(&flags)?;
        let (config, tokenizer) = open(&flags, &folder)?;
        Self::begin(flags, settings, devices, Some(folder), config, tokenizer, usize::MAX)
    }

    fn begin(
        flags: TrainingFlags,
        settings: TrainingSettings,
        devices: Vec<Device>,
        folder: Option<PathBuf>,
        config: C,
        tokenizer: Tokenizer,
        default_length: usize,
    ) -> Result<Self> {
        let device = devices[0].clone();
        let wanted = flags.max_length.unwrap_or(default_length);
        let max_length = wanted.min(config.encoder().trained_length());
        if flags.max_length.is_some_and(|wanted| wanted > max_length) {
            eprintln!(
                "warning: --max-length is {wanted}, but the model was trained with {max_length} tokens: it is {max_length}"
            );
        }
        // Whatever the checkpoint lacks is drawn from the seed.
        device::seed(&device, settings.seed);
        let data = Map::from_iter([("max_length".to_owned(), max_length.into())]);
        Ok(Self { flags, config, tokenizer, max_length, device, devices, settings, folder, data })
    }

    /// Makes the batches of this model.
    pub fn collator(&self) -> Collator {
        Collator { config: self.config.encoder(), pad_id: self.tokenizer.pad_id(), batch_tokens: 64 * self.max_length }
    }

    /// Reads each part of the data that the flags or `default` name.
    pub fn splits<E>(
        &self,
        default: Option<&Path>,
        mut read: impl FnMut(&Path, Part) -> Result<E>,
    ) -> Result<Splits<E>> {
        let paths = self.flags.parts(default)?;
        let valid = paths.valid.map(|path| read(&path, Part::Valid)).transpose()?;
        let test = paths.test.map(|path| read(&path, Part::Test)).transpose()?;
        Ok(Splits { train: read(&paths.train, Part::Train)?, valid, test })
    }

    /// Fills a fresh model from the checkpoint, if there is one. Its head is used only where it answers with the same labels.
    pub fn load<M: Module>(&self, model: M, same_labels: bool) -> Result<M> {
        match &self.folder {
            Some(folder) => self.load_from(folder, &self.config.encoder(), model, same_labels),
            None => Ok(model),
        }
    }

    /// The same from another folder, with its configuration.
    pub fn load_from<M: Module>(&self, folder: &Path, config: &ModelConfig, model: M, same_labels: bool) -> Result<M> {
        let head = if same_labels { HeadPolicy::InitialiseIfMissing } else { HeadPolicy::Initialise };
        let checkpoint = Checkpoint::open_for(folder, config)?;
        let (model, report) = checkpoint.load(model, &LoadOptions { head, ..LoadOptions::default() })?;
        self.announce(&report);
        Ok(model)
    }

    /// Says what of a loaded model a user should know.
    pub fn announce(&self, report: &LoadReport) {
        if !(report.missing.is_empty() && report.misshapen.is_empty()) {
            eprintln!("the head starts from fresh values (seed {})", self.settings.seed);
        }
        for name in &report.not_finite {
            eprintln!("warning: `{name}` holds NaN or infinite values; so may the model's answers");
        }
    }

    /// Trains, and leaves a folder that pipelines and transformers load.
    pub fn train<T: Task>(&self, task: &T, model: TaskModel<T>, default: Option<&Path>) -> Result<()> {
        let output = self.flags.output.as_deref().expect("resolved");
        if let Some(truncated) = task.truncated(self.max_length) {
            eprintln!("warning: {truncated}");
        }
        let paths = self.flags.parts(default)?;
        let mut data = self.data.clone();
        if let Some(folder) = &self.folder {
            data.insert("model".into(), json!({ "folder": folder, "sha256": Checkpoint::open(folder)?.digest()? }));
        }
        for (part, path) in
            [("train", Some(&paths.train)), ("valid", paths.valid.as_ref()), ("test", paths.test.as_ref())]
        {
            if let Some(path) = path {
                data.insert(part.into(), json!({ "file": path, "sha256": file_digest(path)? }));
            }
        }
        let run = Run {
            output,
            config: &self.config,
            tokenizer: &self.tokenizer,
            resume: self.flags.resume,
            devices: &self.devices,
            report_every: self.flags.report_every.unwrap_or(10),
            snapshots: &[],
            data: data.into(),
        };
        eprintln!("{}", self.settings.precision.describe(&self.device));
        let mut progress = Progress::new();
        let outcome = train(task, model, &self.settings, &run, &mut progress)?;
        progress.finish();
        let early = if outcome.stopped_early { ", stopped early" } else { "" };
        let what = if self.settings.lora.as_ref().is_some_and(|lora| !lora.merged) { "adapter" } else { "model" };
        println!("{} steps{early}; the {what} of step {} is in {}", outcome.steps, outcome.best_step, output.display());
        for (part, metrics) in [("validation", &outcome.valid), ("test", &outcome.test)] {
            if let Some(metrics) = metrics {
                println!("\n{part}\n{metrics}");
            }
        }
        Ok(())
    }
}

/// The folder of the model to begin with.
fn folder(flags: &TrainingFlags) -> Result<PathBuf> {
    let folder = locate(flags.model(), None)?;
    check_output(&folder, flags.output.as_deref().expect("resolved"))?;
    Ok(folder)
}

/// Refuses to write where the model is read from, however the folder is spelled.
fn check_output(model: &Path, output: &Path) -> Result<()> {
    match (model.canonicalize(), output.canonicalize()) {
        (Ok(model), Ok(output)) if model == output => {
            let problem = format!(
                "{} is the folder of --model, whose weights would be replaced: choose another one",
                output.display()
            );
            Err(Error::setting("--output", problem))
        }
        _ => Ok(()),
    }
}
