//! The loop of a run: epochs over the data, evaluations, the best model kept, and everything on disk that a killed run needs to
//! go on.
//!
//! burn-train is not used: it saves, resumes and stops early by epoch only and keeps neither the loader's position nor the
//! random state, where this loop goes on from any step to the bit; it clips tensor by tensor; and its progress lines are
//! counted in batches.

use std::time::Instant;

use burn::module::Module;
use serde::Serialize;
use serde_json::json;

use super::{
    learner::{Learner, Start, TrainStepReport},
    metrics::Metrics,
    optimizer::Schedule,
    plan::{EpochOrder, Plan},
    progress::Progress,
    report::{Curve, CurveLog, Figure, Panel, Report},
    run::Run,
    settings::{TrainingSettings, count},
    state,
    task::{Task, TaskModel},
};
use crate::{Error, Result, checkpoint, data::Part, write_file};

/// Told how training goes.
pub trait Observer {
    /// A step is done: how many of how many, and what it reports.
    fn step(&mut self, _done: usize, _total: usize, _report: &TrainStepReport) {}

    /// A report has been written to `metrics.csv`.
    fn report(&mut self, _report: &Report) {}

    /// An evaluation is done; `best` says whether it is the best so far.
    fn evaluated(&mut self, _step: usize, _metrics: &Metrics, _best: bool) {}

    /// Something went wrong that training can do without.
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

/// Trains `model`, which lives on the run's device; leaves the best model (the last, where there is nothing to validate on),
/// `metrics.csv`, `curves.svg` and the record `training.json` in the output folder.
///
/// # Errors
/// Settings that cannot be, data that the model cannot take, a folder that holds an unfinished run without `resume`, another
/// run or another checkpoint, or a file that cannot be written. [`Error::Diverged`] where a loss, a figure or the model itself
/// is not finite; the best model before it stays.
pub fn train<T: Task>(
    task: &T,
    model: TaskModel<T>,
    settings: &TrainingSettings,
    run: &Run<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    settings.validate()?;
    run.validate()?;
    count("--freeze-layers", settings.frozen.layers, 0..=run.config.num_hidden_layers())?;
    let lengths = task.lengths();
    let plan = Plan::new(&lengths, settings, run.devices.len())?;
    let device = &run.devices[0];
    let schedule = Schedule::new(settings.schedule, settings.warmup, settings.learning_rate, plan.steps)?;
    let description = T::Learner::describe(&model);
    let saved = run.enter(&run.identity(settings, &description, lengths.len())?, T::Learner::FOLDERS)?;
    let mut learner = T::Learner::begin(model, Start { settings, schedule, run, saved: saved.as_deref() })?;
    let mut progress: Progress =
        saved.map_or_else(|| Ok(Progress::default()), |folder| state::read_progress(&folder))?;
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
        let step = learner.train_step(batches);
        let done = learner.steps();
        observer.step(done, plan.steps, &step);
        progress.add(&step, tokens);
        timed_tokens += tokens;
        let diverged = |what: String| progress.diverged(done, &what, settings, run);
        let failure = progress.failure(&step).map(diverged);
        if failure.is_none() && run.snapshots.contains(&done) {
            learner.export(run, &run.output.join(format!("step-{done}")))?;
        }

        let evaluates = plan.evaluates(done);
        if failure.is_some() || evaluates || done.is_multiple_of(run.report_every) {
            let mut report = progress
                .report(done, &step, plan.steps_per_epoch)
                .with("tokens_per_second", timed_tokens as f64 / clock.elapsed().as_secs_f64());
            let evaluation = match (&failure, evaluates) {
                (None, true) => Some(evaluate(task, &learner, settings, run).map_err(|error| match error {
                    Error::NotFinite { problem, .. } => progress.diverged(done, &problem, settings, run),
                    error => error,
                })?),
                _ => None,
            };
            let metrics = evaluation.flatten();
            if let Some(metrics) = &metrics {
                report = report.with_metrics(metrics);
            }
            log.append(report.clone())?;
            observer.report(&report);
            if let Some(failure) = failure {
                return Err(failure);
            }
            if evaluates {
                let best = progress.take(done, metrics.as_ref().map(Metrics::selected), settings.patience);
                if let Some(metrics) = &metrics {
                    observer.evaluated(done, metrics, best);
                }
                if best {
                    learner.export(run, run.output)?;
                }
                match picture(&log, &step, metrics.as_ref()).svg() {
                    Ok(svg) => write_file(run.output.join("curves.svg"), svg.as_bytes())?,
                    Err(error) => observer.warn(&format!("curves.svg is not drawn: {error}")),
                }
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
    run.finish(&json!({ "settings": settings, "learner": description, "data": run.data, "outcome": outcome }))?;
    Ok(outcome)
}

/// The model's figures on the validation data, if there is any.
///
/// # Errors
/// [`Error::NotFinite`] where the model, its answers or the figures are not finite: such a model is not kept.
fn evaluate<T: Task>(
    task: &T,
    learner: &T::Learner,
    settings: &TrainingSettings,
    run: &Run<'_>,
) -> Result<Option<Metrics>> {
    let not_finite = |problem: String| Error::NotFinite { index: 0, subject: "the model in training".into(), problem };
    if let Some(parameter) = checkpoint::first_not_finite(learner.model())? {
        return Err(not_finite(format!("the model's `{parameter}` is not finite")));
    }
    let metrics = task.evaluate(&learner.model().valid(), Part::Valid, &run.devices[0])?;
    if metrics.is_none() && settings.patience.is_some() {
        let problem = "nothing can be judged without validation data: add --valid, or leave it away";
        return Err(Error::input("--patience", problem));
    }
    let scores = metrics.iter().flat_map(Metrics::scores);
    match scores.into_iter().find(|score| !score.value.is_finite()) {
        Some(score) => Err(not_finite(format!("the validation {} is {}", score.name, score.value))),
        None => Ok(metrics),
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
