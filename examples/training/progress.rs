//! How a run is shown: a bar where there is a terminal, a line a report where there is none.

use std::{
    io::{IsTerminal, stderr},
    time::Instant,
};

use deberta_burn::training::{Observer, TrainStepReport, metrics::Metrics, report::Report};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

pub struct Progress {
    bar: Option<ProgressBar>,
    /// When the first step of this process was done, and its number.
    begun: Option<(Instant, usize)>,
    total: usize,
}

impl Progress {
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, {eta} left, {prefix}{msg}");
        let bar = || ProgressBar::no_length().with_style(style.expect("a valid template"));
        Self { bar: stderr().is_terminal().then(bar), begun: None, total: 0 }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// What is left after a step, by the steps since the first.
    fn left(&self, step: usize) -> String {
        match self.begun {
            Some((begun, first)) if step > first => {
                let a_step = begun.elapsed() / (step - first) as u32;
                format!("{} left", HumanDuration(a_step * self.total.saturating_sub(step) as u32))
            }
            _ => "time left unknown".to_owned(),
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Observer for Progress {
    fn step(&mut self, done: usize, total: usize, report: &TrainStepReport) {
        self.begun.get_or_insert_with(|| (Instant::now(), done));
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("loss {:.4}", report.loss));
        }
    }

    fn report(&mut self, report: &Report) {
        let value = |name| report.get(name).unwrap_or(f64::NAN);
        match &self.bar {
            Some(bar) => bar.set_prefix(format!("{:.0} tokens/s, ", value("tokens_per_second"))),
            None => eprintln!(
                "step {} (epoch {:.2}): loss {:.4}, gradient norm {:.3}, learning rate {:.2e}, {:.0} tokens/s, {}",
                report.step,
                report.epoch,
                value("train_loss"),
                value("grad_norm"),
                value("learning_rate"),
                value("tokens_per_second"),
                self.left(report.step),
            ),
        }
    }

    fn evaluated(&mut self, step: usize, metrics: &Metrics, best: bool) {
        let best = if best { ", the best so far" } else { "" };
        self.line(&format!("step {step}: validation {}{best}", metrics.selected()));
    }

    fn warn(&mut self, problem: &str) {
        self.line(&format!("warning: {problem}"));
    }
}
