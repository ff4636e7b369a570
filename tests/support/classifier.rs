//! Runs that fine-tune a small classifier.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    path::Path,
    process::{Command, Stdio},
};

use deberta_burn::heads::SequenceClassification;

use crate::{
    runs::{Case, example, saved_step, wait_until},
    support::{config, folder},
};

impl Case {
    /// A classifier with random weights, whose labels no file of the tests has.
    pub fn with_classifier() -> Self {
        Self::new(folder(config(&["a", "b"]), SequenceClassification::new))
    }

    /// A run of it that leaves a folder of this name.
    pub fn classification(&self, output: &str) -> Command {
        let mut command = example("finetune_classification");
        command.arg("--model").arg(self.model.path()).arg("--output").arg(self.path(output));
        command
    }
}

/// Starts a run that would take long, and kills it once it has saved something into the folder.
pub fn kill_when_saved(mut command: Command, output: &Path) {
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
    wait_until(&mut run, || saved_step(output) != 0);
    run.kill().expect("SIGKILL");
    run.wait().expect("an exit");
}
