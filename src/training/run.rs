//! The folder of a run, and whether a run may begin or go on there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, FloatDType};
use serde_json::{Value, json};

use super::{bounds::count, identity::Identity, settings::TrainingSettings, state};
use crate::{
    Error, Result,
    checkpoint::{self, HeadPolicy, LoadOptions},
    config::Configuration,
    device,
    tokenizer::Tokenizer,
    write_file,
};

/// The record of a finished run.
const RECORD: &str = "training.json";
/// The identity of an unfinished run. The file is written first of all, so that the run can tell its own folder from
/// others.
const UNFINISHED: &str = "unfinished.json";

/// The folder of a run, and how the run begins.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The output folder. The best model is written there, as a checkpoint folder.
    pub output: &'a Path,
    /// The configuration to write beside the weights.
    pub config: &'a dyn Configuration,
    /// The tokenizer to write beside them.
    pub tokenizer: &'a Tokenizer,
    /// Whether to go on from the newest checkpoint in the folder, if there is one.
    pub resume: bool,
    /// The devices, with gradients. The model is on the first, and each device takes a share of every step.
    pub devices: &'a [Device],
    /// Steps between lines of `metrics.csv`.
    pub report_every: usize,
    /// Steps whose models are kept, each as a checkpoint in `step-N`.
    pub snapshots: &'a [usize],
    /// What `training.json` says about the data: files, digests, columns, labels. A run with other data is not resumed.
    pub data: Value,
}

impl Run<'_> {
    /// Checks what does not depend on files.
    pub(super) fn validate(&self, settings: &TrainingSettings) -> Result<()> {
        if self.devices.is_empty() {
            return Err(Error::setting("devices", "there is none, expected at least one to train on"));
        }
        self.devices.iter().try_for_each(|device| settings.precision.compute_type(device).map(drop))?;
        if self.devices.iter().any(device::is_host) && !self.devices.iter().all(device::is_host) {
            return Err(Error::setting("devices", "some are this machine's CPU and some are not, expected one sort"));
        }
        // The CPU may be there several times: each of its replicas has a thread of its own.
        let mut others = self.devices.iter().enumerate().filter(|(_, device)| !device::is_host(device));
        if let Some((_, device)) = others.find(|(at, device)| self.devices[..*at].contains(device)) {
            let name = device::name(device);
            let advice = "name each device once, and raise --accumulation for more batches in a step";
            return Err(Error::setting("--devices", format!("`{name}` is there twice; {advice}")));
        }
        count("--report-every", self.report_every, 1..=usize::MAX)
    }

    /// The identity of the run: everything that shapes it.
    pub(super) fn identity(&self, settings: &TrainingSettings, learner: &Value, examples: usize) -> Result<Identity> {
        let (file, text) = self.config.file(&self.config.encoder());
        let config: Value = serde_json::from_str(&text).map_err(Error::json(file))?;
        let mut settings = serde_json::to_value(settings).expect("plain data");
        let accumulation = settings.as_object_mut().and_then(|settings| settings.remove("accumulation"));
        let accumulation = accumulation.and_then(|count| count.as_u64()).unwrap_or(1);
        // Neither the number of devices counts, if a step has as many batches, nor which they are: two GPUs of one kind compute
        // the same.
        let kinds: BTreeSet<_> = self.devices.iter().map(device::kind).collect();
        Ok(Identity::new(&json!({
            "settings": settings,
            "batches of a step (--accumulation x devices)": accumulation * self.devices.len() as u64,
            "learner": learner,
            "examples": examples,
            "data": self.data,
            "tokenizer": self.tokenizer.digest()?,
            "config": config,
            "devices": kinds,
        })))
    }

    /// Takes possession of the output folder for this run; `folders` are the folders in it that checkpoints are written
    /// to. Returns the folder of the saved state to go on from, if there is one.
    ///
    /// # Errors
    /// A folder that holds a finished run, an unfinished run (without `resume`, or a different one), or a checkpoint
    /// that no run wrote.
    pub(super) fn enter(&self, identity: &Identity, folders: &[&str]) -> Result<Option<PathBuf>> {
        fs::create_dir_all(self.output).map_err(Error::io("create", self.output))?;
        if self.output.join(RECORD).exists() {
            return Err(self.refuse(&format!("a finished run is in this folder ({RECORD}): choose another one")));
        }
        let path = self.output.join(UNFINISHED);
        let saved = state::newest(self.output)?;
        if let Some(before) = Identity::read(&path)? {
            if saved.is_some() && !self.resume {
                let problem = "an unfinished run is in this folder: go on with --resume, or choose another folder";
                return Err(self.refuse(problem));
            }
            if saved.is_some() && before != *identity {
                let differences = identity.differences(&before);
                let problem = format!(
                    "the run in this folder is another one: {differences}; resume it as it was begun, or choose another folder"
                );
                return Err(self.refuse(&problem));
            }
        } else if let Some(saved) = &saved {
            let name = saved.strip_prefix(self.output).unwrap_or(saved).display();
            let problem = format!("it holds `{name}`, which is not of this run: choose another folder");
            return Err(self.refuse(&problem));
        } else if let Some(file) = folders.iter().find_map(|folder| checkpoint::file_in(&self.output.join(folder))) {
            let file = file.strip_prefix(self.output).unwrap_or(&file).display();
            let problem = format!(
                "it holds a checkpoint that is not of this run ({file}), which would be replaced: choose another folder"
            );
            return Err(self.refuse(&problem));
        }
        identity.write(&path)?;
        Ok(saved)
    }

    /// Writes the record of the finished run, and removes the files that only an unfinished run needs.
    pub(super) fn finish(&self, record: &Value) -> Result<()> {
        let text = serde_json::to_string_pretty(record).expect("plain data");
        write_file(self.output.join(RECORD), text.as_bytes())?;
        state::remove(self.output)?;
        let path = self.output.join(UNFINISHED);
        fs::remove_file(&path).map_err(Error::io("remove", &path))
    }

    /// How the run's checkpoints are read: nothing may be missing.
    pub(super) fn load_options(&self) -> LoadOptions {
        LoadOptions { dtype: FloatDType::F32, head: HeadPolicy::Required }
    }

    fn refuse(&self, problem: &str) -> Error {
        Error::file(self.output, problem)
    }
}
