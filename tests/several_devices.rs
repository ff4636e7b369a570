//! Training on several devices of one process, as programs. Two names of one CPU are two devices: each has its own model and
//! optimiser.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::process::Command;

use assert_cmd::assert::OutputAssertExt;
use classifier::kill_when_saved;
use predicates::{prelude::*, str::contains};
use runs::{Case, error_of, figures, kill_and_resume, losses};

/// Steps of four batches, on devices that take so many of them each.
fn start(case: &Case, output: &str, devices: &str, accumulation: &str, flags: &[&str]) -> Command {
    let train = case.reviews("train.tsv", 80);
    let mut command = case.classification(output);
    command.arg("--train").arg(&train).args(["--devices", devices, "--accumulation", accumulation]);
    command.args(["--batch-size", "4", "--learning-rate", "1e-4", "--report-every", "1"]).args(flags);
    command
}

/// The losses of two runs that differ in the order of their sums alone.
fn assert_close(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    for (step, (one, other)) in one.iter().zip(other).enumerate() {
        // Each number of a sum is rounded to 6e-8 of its size, a small learning rate keeps what AdamW makes of it small, and it
        // adds up: 1e-6 at first, and as much again every 20 steps.
        let tolerance = 1e-6 * (1.0 + step as f64 / 20.0);
        assert!((one - other).abs() <= tolerance * one.abs(), "step {}: {one} and {other}", step + 1);
    }
}

#[test]
fn devices_train_as_one_does() {
    let case = Case::with_classifier();
    for (name, flags) in [
        ("plain", &["--steps", "20"][..]),
        ("sift", &["--steps", "20", "--sift"]),
        ("lora", &["--steps", "20", "--lora", "2", "--clip-norm", "0.1"]),
    ] {
        let run = |devices: &str, accumulation: &str| {
            let output = format!("{name}-{accumulation}");
            start(&case, &output, devices, accumulation, flags).assert().success();
            losses(&case.path(&output))
        };
        let one = run("flex", "4");
        assert_close(&one, &run("flex,flex", "2"));
        assert_close(&one, &run("flex,flex,flex,flex", "1"));
    }
}

#[test]
fn a_run_on_two_devices_resumes_to_the_bit() {
    let case = Case::with_classifier();
    let flags = ["--steps", "200", "--evaluate-every", "10"];
    kill_and_resume(&case, 2, |output| start(&case, output, "flex,flex", "2", &flags));
}

/// Two devices, then one, then four, with the same batches in each step; with others it is another run.
#[test]
fn a_run_goes_on_with_other_devices() {
    let case = Case::with_classifier();
    let flags = ["--steps", "200", "--evaluate-every", "10", "--resume"];
    start(&case, "whole", "flex", "4", &flags).assert().success();
    kill_when_saved(start(&case, "moved", "flex,flex", "2", &flags), &case.path("moved"));
    let error = error_of(start(&case, "moved", "flex", "2", &flags));
    assert!(error.contains("batches of a step (--accumulation x devices) was 4, now it is 2"), "{error}");
    let said =
        contains("the number of devices was 2 when the run was saved and is 4 now").and(contains("within rounding"));
    start(&case, "moved", "flex,flex,flex,flex", "1", &flags).assert().success().stderr(said);
    assert_close(&losses(&case.path("whole")), &losses(&case.path("moved")));
    assert_eq!(figures(&case.path("whole")).len(), figures(&case.path("moved")).len());
}

#[test]
fn devices_are_refused_by_name() {
    let case = Case::with_classifier();
    let refused = |devices: &str, flags: &[&str]| error_of(start(&case, "refused", devices, "1", flags));
    assert!(refused("flex,tpu", &[]).contains("device `tpu`: unknown"));
    assert!(refused("flex,flex", &["--device", "flex"]).contains("--devices: it names the devices to train on"));
}
