//! The loop of a run: epochs over the data, evaluations, the best model kept, and all files that a killed run needs to go on.
//!
//! This loop goes on from any step, to the bit. That is why burn-train is not used: it saves, resumes and stops early by epoch
//! only, and keeps neither the loader's position nor the random state. It also clips each tensor by its own norm, and counts
//! progress in batches.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use burn::module::Module;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    bounds::count,
    learner::{Learner, Start, TrainStepReport},
    metrics::Metrics,
    optimizer::Schedule,
    plan::{EpochOrder, Plan},
    progress::Progress,
    report::{Curve, CurveLog, Figure, Panel, Report},
    run::Run,
    settings::TrainingSettings,
    state,
    task::{Task, TaskBatch, TaskModel},
};
use crate::{Error, Result, checkpoint, data::Part, device, write_file};

/// Told how training goes.
pub trait Observer {
    /// A step is done: how many of how many, and what it reports.
    fn step(&mut self, _done: usize, _total: usize, _report: &TrainStepReport) {}

    /// A report has been written to `metrics.csv`.
    fn report(&mut self, _report: &Report) {}

    /// An evaluation is done; `best` says whether it is the best so far.
    fn evaluated(&mut self, _step: usize, _metrics: &Metrics, _best: bool) {}

    /// Something failed that training does not need.
    fn warn(&mut self, _problem: &str) {}
}

impl Observer for () {}

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

/// Trains `model`, which lives on the run's device. Leaves the best model (the last one, without validation data),
/// `metrics.csv`, `curves.svg` and the record `training.json` in the output folder.
///
/// # Errors
/// Settings that cannot be, data that the model cannot take, a folder that holds another checkpoint, another run or, without
/// `resume`, an unfinished one, or a file that cannot be written. [`Error::Device`] if a device of another process is lost.
/// [`Error::Diverged`] if a loss, a figure or the model itself
/// is not finite; the best model before that stays.
pub fn train<T: Task>(
    task: &T,
    model: TaskModel<T>,
    settings: &TrainingSettings,
    run: &Run<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.validate()?;
    run.validate(settings)?;
    count("--freeze-layers", settings.frozen.layers, 0..=run.config.encoder().num_hidden_layers())?;
    let all = move || {
        let mut training = Training::begin(task, model, settings, run, observer)?;
        while !training.is_over() {
            training.step()?;
        }
        training.finish()
    };
    if run.devices.iter().any(device::is_remote) { or_lost(all) } else { all() }
}

/// burn panics if a device of another process is gone; for a run, that is an error. Nothing of the run is used after it.
fn or_lost<R>(run: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let problem = format!(
            "a worker is lost ({}); --resume goes on from the last evaluation, with the same batches in a step (--accumulation x \
             devices) also on other workers",
            text.unwrap_or("without a reason")
        );
        Err(Error::Device { device: "remote".to_owned(), problem })
    })
}

/// A run under way.
struct Training<'a, T: Task> {
    task: &'a T,
    settings: &'a TrainingSettings,
    run: &'a Run<'a>,
    observer: &'a mut dyn Observer,
    plan: Plan,
    /// What training examples are grouped by.
    lengths: Vec<usize>,
    /// Tokens of each training example.
    tokens: Vec<usize>,
    order: EpochOrder,
    learner: T::Learner,
    /// The learner's part of the run's identity.
    description: Value,
    progress: Progress,
    log: CurveLog,
    pace: Pace,
}

/// How fast training is, evaluations left out.
struct Pace {
    since: Instant,
    tokens: usize,
}

impl Pace {
    fn start() -> Self {
        Self { since: Instant::now(), tokens: 0 }
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.since.elapsed().as_secs_f64()
    }
}

impl<'a, T: Task> Training<'a, T> {
    /// Enters the output folder, and goes on from the checkpoint there if the run is resumed.
    fn begin(
        task: &'a T,
        model: TaskModel<T>,
        settings: &'a TrainingSettings,
        run: &'a Run<'a>,
        observer: &'a mut dyn Observer,
    ) -> Result<Self> {
        let (lengths, tokens) = (task.lengths(), task.tokens());
        let plan = Plan::new(&lengths, settings, run.devices.len())?;
        let schedule = Schedule::new(settings.schedule, settings.warmup, settings.learning_rate, plan.steps)?;
        let description = T::Learner::describe(&model);
        let saved = run.enter(&run.identity(settings, &description, lengths.len())?, T::Learner::FOLDERS)?;
        let learner = T::Learner::begin(model, Start { settings, schedule, run, saved: saved.as_deref() })?;
        let mut progress = saved.map_or_else(|| Ok(Progress::default()), |folder| state::read_progress(&folder))?;
        if let Some(change) = progress.continue_on(run.devices.len()) {
            observer.warn(&change);
        }
        let log = match learner.steps() {
            0 => CurveLog::create(run.output.join("metrics.csv"))?,
            steps => CurveLog::resume(run.output.join("metrics.csv"), steps)?,
        };
        let (order, pace) = (EpochOrder::default(), Pace::start());
        Ok(Self {
            task,
            settings,
            run,
            observer,
            plan,
            lengths,
            tokens,
            order,
            learner,
            description,
            progress,
            log,
            pace,
        })
    }

    fn is_over(&self) -> bool {
        self.learner.steps() >= self.plan.steps || self.progress.stopped
    }

    /// One step, and the report, snapshot and evaluation that are due after it.
    fn step(&mut self) -> Result<()> {
        let (batches, tokens) = self.batches()?;
        let step = self.learner.train_step(batches);
        let done = self.learner.steps();
        self.observer.step(done, self.plan.steps, &step);
        self.progress.add(&step, tokens);
        self.pace.tokens += tokens;
        if let Some(failure) = self.progress.failure(&step) {
            let report = self.report(&step);
            self.publish(report)?;
            return Err(self.diverged(&failure));
        }
        if self.run.snapshots.contains(&done) {
            self.learner.export(self.run, &self.run.output.join(format!("step-{done}")))?;
        }
        let evaluates = self.plan.evaluates(done);
        if evaluates || done.is_multiple_of(self.run.report_every) {
            let report = self.report(&step);
            let metrics = if evaluates { self.evaluate()? } else { None };
            self.publish(metrics.iter().fold(report, Report::with_metrics))?;
            if evaluates {
                self.keep(&step, metrics.as_ref())?;
            }
            self.pace = Pace::start();
        }
        Ok(())
    }

    /// The next step's batches, and the tokens in them.
    fn batches(&mut self) -> Result<(Vec<TaskBatch<T>>, usize)> {
        let batches = self.plan.batches(self.learner.steps(), &self.lengths, self.settings, &mut self.order)?;
        let examples = batches.iter().flat_map(|(_, examples)| examples);
        let tokens = examples.map(|&example| self.tokens[example]).sum();
        let batches = batches
            .iter()
            .enumerate()
            .map(|(number, (epoch, examples))| self.task.batch(examples, *epoch, self.learner.device(number)));
        Ok((batches.collect::<Result<_>>()?, tokens))
    }

    /// What `metrics.csv` says of the steps since the last report.
    fn report(&mut self, step: &TrainStepReport) -> Report {
        let report = self.progress.report(self.learner.steps(), step, self.plan.steps_per_epoch);
        report.with("tokens_per_second", self.pace.tokens_per_second())
    }

    /// Appends a report to `metrics.csv` and shows it.
    fn publish(&mut self, report: Report) -> Result<()> {
        self.log.append(report.clone())?;
        self.observer.report(&report);
        Ok(())
    }

    /// The model's figures on the validation data, if there is any.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the model, its answers or the figures are not finite: such a model is not kept.
    fn evaluate(&self) -> Result<Option<Metrics>> {
        if let Some(parameter) = checkpoint::first_not_finite(self.learner.model())? {
            return Err(self.diverged(&format!("the model's `{parameter}` is not finite")));
        }
        let model = self.learner.model().valid();
        let metrics = self.task.evaluate(&model, Part::Valid, &self.run.devices[0]).map_err(|error| match error {
            Error::NotFinite { problem, .. } => self.diverged(&problem),
            error => error,
        })?;
        if metrics.is_none() && self.settings.patience.is_some() {
            let problem = "nothing can be judged without validation data: add --valid, or leave it away";
            return Err(Error::setting("--patience", problem));
        }
        let scores = metrics.iter().flat_map(Metrics::scores);
        match scores.into_iter().find(|score| !score.value.is_finite()) {
            Some(score) => Err(self.diverged(&format!("the validation {} is {}", score.name, score.value))),
            None => Ok(metrics),
        }
    }

    /// Keeps the model if it is the best so far, draws the curves, and saves all that a killed run needs to go on.
    fn keep(&mut self, step: &TrainStepReport, metrics: Option<&Metrics>) -> Result<()> {
        let (done, output) = (self.learner.steps(), self.run.output);
        let best = self.progress.take(done, metrics.map(Metrics::selected), self.settings.patience);
        if let Some(metrics) = metrics {
            self.observer.evaluated(done, metrics, best);
        }
        if best {
            self.learner.export(self.run, output)?;
        }
        match picture(&self.log, step, metrics).svg() {
            Ok(svg) => write_file(output.join("curves.svg"), svg.as_bytes())?,
            Err(error) => self.observer.warn(&format!("curves.svg is not drawn: {error}")),
        }
        state::save(output, done, &self.progress, |folder| self.learner.save(self.run.config, folder))
    }

    /// The error that ends the run at the step just made.
    fn diverged(&self, what: &str) -> Error {
        self.progress.diverged(self.learner.steps(), what, self.settings, self.run)
    }

    /// Judges the model that was kept, read back from its own file, and writes the record.
    fn finish(self) -> Result<Outcome> {
        let Self { task, settings, run, plan, learner, description, progress, .. } = self;
        let best = learner.exported(run.output, &run.load_options())?;
        let figures = |part| task.evaluate(&best, part, &run.devices[0]);
        let outcome = Outcome {
            steps: learner.steps(),
            best_step: progress.best_step,
            valid: figures(Part::Valid)?,
            test: figures(Part::Test)?,
            stopped_early: learner.steps() < plan.steps,
        };
        run.finish(&json!({ "settings": settings, "learner": description, "data": run.data, "outcome": outcome }))?;
        Ok(outcome)
    }
}

/// The loss and its parts, and the figure that selects the model where there is one.
fn picture(log: &CurveLog, step: &TrainStepReport, metrics: Option<&Metrics>) -> Figure {
    let panel = |label: &str, column: &str| Panel {
        y_label: label.into(),
        curves: vec![Curve::new(label, log.points(column))],
    };
    let mut panels = vec![panel("training loss", "train_loss")];
    panels.extend(step.parts.iter().map(|(name, _)| panel(&name.replace('_', " "), name)));
    panels.extend(metrics.map(|metrics| panel(&metrics.selected().name, &metrics.selected().name)));
    Figure { title: "Training".into(), x_label: "step".into(), panels }
}
