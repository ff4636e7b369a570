//! A training run: epochs over the data, evaluations, the best model kept, and everything on disk that a killed run needs to go
//! on.
//!
//! burn-train is not used: it saves, resumes and stops early by epoch only and keeps neither the loader's position nor the
//! random state, where this loop goes on from any step to the bit; it clips tensor by tensor; and its progress lines are
//! counted in batches.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use burn::{
    module::Module,
    tensor::{Device, FloatDType},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    learner::{Learner, Start},
    metrics::{Metrics, Score},
    optimizer::AdamWConfig,
    optimizer::Frozen,
    optimizer::{Schedule, ScheduleKind, Warmup},
    plan::{EpochOrder, Plan},
    report::{Curve, CurveLog, Figure, Panel, Report},
    sift::Sift,
    state,
    trainer::StepReport,
};
use crate::{
    Error, ModelConfig, Result,
    checkpoint::{HeadPolicy, LoadOptions},
    data::Part,
    tokenizer::Tokenizer,
    write_file,
};

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// Passes through the training data; fractions are allowed.
    pub epochs: f64,
    /// Optimiser steps instead of epochs, if given.
    pub steps: Option<usize>,
    /// Examples in a batch of one device.
    pub batch_size: usize,
    /// Batches of each device whose gradients make one step.
    pub accumulation: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How long it rises.
    pub warmup: Warmup,
    /// How it falls.
    pub schedule: ScheduleKind,
    /// Factor of the learning rate from each layer to the one below it.
    pub layer_decay: f64,
    /// The optimiser's numbers.
    pub optimizer: AdamWConfig,
    /// What does not learn.
    pub frozen: Frozen,
    /// Scale-invariant fine-tuning, if wanted.
    pub sift: Option<Sift>,
    /// Steps between evaluations; one an epoch if none.
    pub evaluate_every: Option<usize>,
    /// Evaluations without improvement after which training stops; never if none.
    pub patience: Option<usize>,
    /// Of the order of examples, dropout and noise.
    pub seed: u64,
}

impl Default for TrainingSettings {
    /// The published recipe of MNLI on a base model, without warmup in steps of its own.
    fn default() -> Self {
        Self {
            epochs: 3.0,
            steps: None,
            batch_size: 32,
            accumulation: 1,
            learning_rate: 2e-5,
            warmup: Warmup::Ratio(0.1),
            schedule: ScheduleKind::Linear,
            layer_decay: 1.0,
            optimizer: AdamWConfig::default(),
            frozen: Frozen::default(),
            sift: None,
            evaluate_every: None,
            patience: None,
            seed: 0,
        }
    }
}

/// Data and evaluation of one task.
pub trait Task: Sized {
    /// What trains its model.
    type Learner: Learner;

    /// Tokens of each training example, by which they are grouped.
    fn lengths(&self) -> Vec<usize>;

    /// Some training examples as a batch on the device; what is random in them follows from the epoch.
    ///
    /// # Errors
    /// An example that the model cannot take.
    fn batch(&self, examples: &[usize], epoch: usize, device: &Device) -> Result<TaskBatch<Self>>;

    /// How good a model (without gradients) is on a part of the data, or none if there is no such part.
    ///
    /// # Errors
    /// An example that the model cannot take.
    fn evaluate(&self, model: &TaskModel<Self>, part: Part, device: &Device) -> Result<Option<Metrics>>;
}

/// The model of a task.
pub type TaskModel<T> = <<T as Task>::Learner as Learner>::Model;

/// A batch of a task: inputs and labels.
pub type TaskBatch<T> = <<T as Task>::Learner as Learner>::Batch;

/// Told how training goes.
pub trait Observer {
    /// A step is done: how many of how many, and what it reports.
    fn step(&mut self, _done: usize, _total: usize, _report: &StepReport) {}

    /// A report has been written to `metrics.csv`.
    fn report(&mut self, _report: &Report) {}

    /// An evaluation is done; `best` says whether it is the best so far.
    fn evaluated(&mut self, _step: usize, _metrics: &Metrics, _best: bool) {}
}

impl Observer for () {}

/// The record of a finished run.
const RECORD: &str = "training.json";

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Steps made.
    pub steps: usize,
    /// The step of the model that was kept.
    pub best_step: usize,
    /// Its figures on the validation data, if there is any.
    pub valid: Option<Metrics>,
    /// Its figures on the test data, if there is any.
    pub test: Option<Metrics>,
    /// Whether training stopped before its end because nothing improved.
    pub stopped_early: bool,
}

/// What is to be remembered between steps beside model and optimiser.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Progress {
    /// Settings, learner, number of examples, and the digests of data and tokenizer, as text: numbers have to be the same to
    /// the last digit.
    run: String,
    /// The bits of the best figure, which JSON need not keep to the last.
    best: Option<u64>,
    best_step: usize,
    without_improvement: usize,
    stopped: bool,
    /// Tokens seen.
    tokens: usize,
    /// Sums since the last report. A report comes before every save, so there is nothing to be saved.
    #[serde(skip)]
    sums: Sums,
}

/// What steps report, added up.
#[derive(Clone, Debug, Default)]
struct Sums {
    steps: usize,
    loss: f64,
    parts: Vec<(&'static str, f64)>,
}

impl Sums {
    fn add(&mut self, step: &StepReport) {
        self.steps += 1;
        self.loss += step.loss;
        if self.parts.is_empty() {
            self.parts.clone_from(&step.parts);
        } else {
            self.parts.iter_mut().zip(&step.parts).for_each(|((_, sum), (_, part))| *sum += part);
        }
    }
}

/// Where a run lives and how it begins.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The output folder; the best model is its content, as every checkpoint.
    pub output: &'a Path,
    /// The configuration to write beside the weights.
    pub config: &'a ModelConfig,
    /// The tokenizer to write beside them.
    pub tokenizer: &'a Tokenizer,
    /// Whether to go on from the newest checkpoint in the folder, if there is one.
    pub resume: bool,
    /// Where the model trains, devices with gradients: it is on the first, and each takes a share of every step.
    pub devices: &'a [Device],
    /// The element type of the weights.
    pub dtype: FloatDType,
    /// Steps between lines of `metrics.csv`.
    pub report_every: usize,
    /// Steps whose model is to stay, each as a checkpoint in `step-N`.
    pub snapshots: &'a [usize],
    /// What to say of the data in `training.json`: files, digests, labels.
    pub data: serde_json::Value,
}

impl Run<'_> {
    /// How checkpoints of the run are read: whole.
    pub(super) fn load_options(&self) -> LoadOptions {
        LoadOptions { dtype: self.dtype, head: HeadPolicy::Required }
    }

    /// The folder of the checkpoint to go on from, if there is one and the run may.
    fn saved(&self) -> Result<Option<PathBuf>> {
        if self.output.join(RECORD).exists() {
            return Err(self.refuse(&format!("a finished run is in this folder ({RECORD}): choose another one")));
        }
        match state::newest(self.output)? {
            Some(_) if !self.resume => {
                Err(self.refuse("an unfinished run is in this folder: go on with --resume, or choose another folder"))
            }
            saved => Ok(saved),
        }
    }

    fn refuse(&self, problem: &str) -> Error {
        Error::input(self.output.display().to_string(), problem)
    }
}

/// Trains `model`, which lives on the run's device; leaves the best model (the last, where there is nothing to validate on),
/// `metrics.csv`, `curves.svg` and the record `training.json` in the output folder.
///
/// # Errors
/// Settings that cannot be, data that the model cannot take, a folder that holds an unfinished run without `resume`, a resumed
/// run with other settings, or a file that cannot be written.
pub fn train<T: Task>(
    task: &T,
    model: TaskModel<T>,
    settings: &TrainingSettings,
    run: &Run<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let lengths = task.lengths();
    let plan = Plan::new(&lengths, settings, run.devices.len())?;
    let device = &run.devices[0];
    let schedule = Schedule::new(settings.schedule, settings.warmup, settings.learning_rate, plan.steps)?;
    fs::create_dir_all(run.output).map_err(Error::io("create", run.output))?;
    let saved = run.saved()?;
    let mut learner = T::Learner::begin(model, Start { settings, schedule, run, saved: saved.as_deref() })?;
    let mut progress = Progress::new(settings, &learner.describe(), lengths.len(), run)?;
    if let Some(folder) = &saved {
        progress = progress.resume(folder, run)?;
    }
    let mut log = match learner.steps() {
        0 => CurveLog::create(run.output.join("metrics.csv"))?,
        steps => CurveLog::resume(run.output.join("metrics.csv"), steps)?,
    };

    let mut clock = Instant::now();
    let mut timed_tokens = 0;
    let mut order = EpochOrder::default();
    while learner.steps() < plan.steps && !progress.stopped {
        let batches = plan.batches(learner.steps(), &lengths, settings, &mut order)?;
        let tokens: usize = batches.iter().flat_map(|(_, examples)| examples).map(|example| lengths[*example]).sum();
        let batches = batches.iter().enumerate();
        let batches = batches.map(|(number, (epoch, examples))| task.batch(examples, *epoch, learner.device(number)));
        let batches = batches.collect::<Result<_>>()?;
        let step = learner.step(batches);
        let done = learner.steps();
        observer.step(done, plan.steps, &step);
        progress.sums.add(&step);
        progress.tokens += tokens;
        timed_tokens += tokens;
        if run.snapshots.contains(&done) {
            learner.export(run, &run.output.join(format!("step-{done}")))?;
        }

        let evaluates = plan.evaluates(done);
        if evaluates || done.is_multiple_of(run.report_every) {
            let mut report = progress
                .report(done, &step, plan.steps_per_epoch)
                .with("tokens_per_second", timed_tokens as f64 / clock.elapsed().as_secs_f64());
            let metrics = if evaluates { task.evaluate(&learner.model().valid(), Part::Valid, device)? } else { None };
            if let Some(metrics) = &metrics {
                report = report.with_metrics(metrics);
            }
            log.append(report.clone())?;
            observer.report(&report);
            if evaluates {
                let best = progress.take(done, metrics.as_ref().map(Metrics::selected), settings.patience);
                if let Some(metrics) = &metrics {
                    observer.evaluated(done, metrics, best);
                }
                if best {
                    learner.export(run, run.output)?;
                }
                draw(&log, &step, metrics.as_ref(), &run.output.join("curves.svg"))?;
                state::save(run.output, done, &progress, |folder| learner.save(run.config, folder))?;
            }
            (clock, timed_tokens) = (Instant::now(), 0);
        }
    }
    let steps = learner.steps();
    // The figures of the model that was kept, from its own file.
    let best = learner.exported(run.output, &run.load_options())?;
    let outcome = Outcome {
        steps,
        best_step: progress.best_step,
        valid: task.evaluate(&best, Part::Valid, device)?,
        test: task.evaluate(&best, Part::Test, device)?,
        stopped_early: steps < plan.steps,
    };
    let record = json!({ "settings": settings, "learner": learner.describe(), "data": run.data, "outcome": outcome });
    let text = serde_json::to_string_pretty(&record).expect("plain data");
    write_file(run.output.join(RECORD), text.as_bytes())?;
    state::remove(run.output)?;
    Ok(outcome)
}

impl Progress {
    fn new(settings: &TrainingSettings, learner: &serde_json::Value, examples: usize, run: &Run<'_>) -> Result<Self> {
        let what = (settings, learner, examples, &run.data, run.tokenizer.digest()?);
        Ok(Self {
            run: serde_json::to_string(&what).expect("plain data"),
            best: None,
            best_step: 0,
            without_improvement: 0,
            stopped: false,
            tokens: 0,
            sums: Sums::default(),
        })
    }

    /// That of a saved run, which must be this one.
    fn resume(self, folder: &Path, run: &Run<'_>) -> Result<Self> {
        let saved: Self = state::read_progress(folder)?;
        match saved.run == self.run {
            true => Ok(saved),
            false => Err(run.refuse(
                "the run in this folder was started with other settings, data or tokenizer: resume it with the same, \
                 or choose another folder",
            )),
        }
    }

    /// A line of `metrics.csv`, with the means of the losses since the last one.
    fn report(&mut self, done: usize, step: &StepReport, steps_per_epoch: f64) -> Report {
        let Sums { steps, loss, parts } = std::mem::take(&mut self.sums);
        let report = Report::new(done, done as f64 / steps_per_epoch)
            .with("learning_rate", step.learning_rate)
            .with("train_loss", loss / steps as f64)
            .with("grad_norm", step.gradient_norm)
            .with("tokens", self.tokens as f64);
        parts.into_iter().fold(report, |report, (name, sum)| report.with(name, sum / steps as f64))
    }

    /// Notes an evaluation; whether the model is to be kept.
    fn take(&mut self, step: usize, score: Option<&Score>, patience: Option<usize>) -> bool {
        let improves = match (score, self.best) {
            (Some(score), Some(best)) => score.improves_on(f64::from_bits(best)),
            _ => true,
        };
        if improves {
            self.best = score.map(|score| score.value.to_bits());
            self.best_step = step;
            self.without_improvement = 0;
        } else {
            self.without_improvement += 1;
            self.stopped = patience.is_some_and(|patience| self.without_improvement >= patience);
        }
        improves
    }
}

/// Draws the loss and its parts, and the figure that selects the model where there is one.
fn draw(log: &CurveLog, step: &StepReport, metrics: Option<&Metrics>, path: &Path) -> Result<()> {
    let panel = |label: &str, column: &str| Panel {
        y_label: label.into(),
        curves: vec![Curve::new(label, log.points(column))],
    };
    let mut panels = vec![panel("training loss", "train_loss")];
    panels.extend(step.parts.iter().map(|(name, _)| panel(&name.replace('_', " "), name)));
    panels.extend(metrics.map(|metrics| panel(&metrics.selected().name, &metrics.selected().name)));
    Figure { title: "Training".into(), x_label: "step".into(), panels }.write_svg(path)
}
