//! Training on devices that worker processes serve over the loopback interface, each with one thread.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use deberta_burn::heads::SequenceClassification;
use runs::{Case, error_of, example, losses, outcome_of, saved_step, spawned, wait_until};
use tempfile::TempDir;

const TOKEN: &str = "DEBERTA_BURN_REMOTE_TOKEN";

/// A worker process, which ends with its test.
struct Worker {
    process: Child,
    /// Its device's name.
    device: String,
}

impl Worker {
    fn start(token: &str) -> Self {
        let mut command = example("worker");
        command.args(["--port", "0"]).env("RAYON_NUM_THREADS", "1").env(TOKEN, token);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit(' ').next().expect("an address").to_owned();
        Self { process, device: format!("remote:{address}") }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Steps of two batches.
fn start(case: &Case, output: &str, devices: &str, flags: &[&str]) -> Command {
    let train = case.reviews("train.tsv", 40);
    let accumulation = if devices.contains(',') { "1" } else { "2" };
    let mut command = case.classification(output);
    command.arg("--train").arg(&train).args(["--devices", devices, "--accumulation", accumulation, "--resume"]);
    command.args(["--batch-size", "4", "--learning-rate", "1e-4", "--report-every", "1"]).args(flags).env(TOKEN, "");
    command
}

/// Runs a program that has to succeed.
#[track_caller]
fn run(command: Command) {
    let (status, text) = outcome_of(spawned(command));
    assert!(status.success(), "{text}");
}

#[track_caller]
fn assert_close(one: &[f64], other: &[f64], tolerance: f64) {
    assert_eq!(one.len(), other.len());
    for (step, (one, other)) in one.iter().zip(other).enumerate() {
        assert!((one - other).abs() <= tolerance * one.abs(), "step {}: {one} and {other}", step + 1);
    }
}

/// A classifier with the labels of the data: fresh weights of a head would differ, for each device draws its own.
fn model(dropout: f64) -> TempDir {
    let mut config = support::config(&["glad", "sad"]);
    config.hidden_dropout_prob = dropout;
    config.attention_probs_dropout_prob = dropout;
    config.pooler_dropout = 0.0;
    config.cls_dropout = Some(dropout);
    support::folder(config, SequenceClassification::new)
}

#[test]
fn two_workers_train_as_one_device_does() {
    let case = Case::new(model(0.1));
    // Masks of dropout go by the rows of a batch, which has no padding here and has some on a worker.
    let without_dropout = Case::new(model(0.0));
    let workers = [Worker::start(""), Worker::start("")];
    let both = format!("{},{}", workers[0].device, workers[1].device);
    for (name, flags) in [("plain", &["--steps", "10"][..]), ("sift", &["--steps", "10", "--sift"])] {
        let trained = |case: &Case, devices: &str, output: &str| {
            let output = format!("{name}-{output}");
            run(start(case, &output, devices, flags));
            losses(&case.path(&output))
        };
        // The order of the sums of gradients alone differs.
        assert_close(&trained(&case, &workers[0].device, "one"), &trained(&case, &both, "two"), 1e-6);
        let [here, two] = ["flex", &both].map(|devices| trained(&without_dropout, devices, &devices.replace(':', "-")));
        // Workers compute by burn's operations and not by the fused kernels, which round otherwise. The losses of the fresh weights
        // agree to that. AdamW's first steps have the size of the learning rate even where a gradient is no more than rounding,
        // and carry it on: fresh weights of other draws ended 1e-3 to 3e-3 apart, where training halves the loss.
        assert_close(&here[..1], &two[..1], 1e-6);
        assert_close(&here, &two, 1e-2);
    }
}

#[test]
fn a_lost_worker_ends_the_run_which_goes_on_with_the_other() {
    let case = Case::with_classifier();
    let (first, mut second) = (Worker::start(""), Worker::start(""));
    let both = format!("{},{}", first.device, second.device);
    let flags = ["--steps", "60", "--evaluate-every", "5"];
    run(start(&case, "whole", &both, &flags));

    let folder = case.path("lost");
    let mut lost = spawned(start(&case, "lost", &both, &flags));
    wait_until(&mut lost, || saved_step(&folder) != 0);
    second.process.kill().expect("SIGKILL");
    let (status, text) = outcome_of(lost);
    assert!(!status.success() && text.contains("error: device `remote`: a worker is lost"), "{text}");

    run(start(&case, "lost", &first.device, &flags));
    assert_close(&losses(&case.path("whole")), &losses(&folder), 1e-6);
}

#[test]
fn workers_are_refused_by_name() {
    let case = Case::with_classifier();
    let refused = |device: &str| error_of(start(&case, "refused", device, &["--steps", "1"]));
    assert!(refused("remote:3000").contains("expected the host and the port of a worker"));
    let worker = Worker::start("");
    let twice = refused(&format!("{0},{0}", worker.device));
    assert!(
        twice.contains(&format!("--devices: `{}` is there twice; name each device once", worker.device)),
        "{twice}"
    );
    let worker = Worker::start("secret");
    let error = refused(&worker.device);
    assert!(error.contains("rejected the credential") && error.contains(TOKEN), "{error}");
    let mut known = start(&case, "known", &worker.device, &["--steps", "1"]);
    known.env(TOKEN, "secret");
    run(known);
}
