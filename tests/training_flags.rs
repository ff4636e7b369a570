//! The flags of training, as programs take them: ranges, settings files, and which of two wins.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::{fs, path::Path};

use assert_cmd::assert::OutputAssertExt;
use predicates::{prelude::*, str::contains};
use runs::{Case, error_line, example, outcome};
use serde_json::Value;

/// The settings of a finished run.
fn settings_of(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("training.json")).expect("training.json");
    serde_json::from_str::<Value>(&text).expect("JSON")["settings"].clone()
}

#[test]
fn flags_out_of_range_are_errors_by_name() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 20);
    for (flags, parts) in [
        (["--learning-rate", "nan"], "--learning-rate: it is NaN, expected a number above 0"),
        (["--learning-rate", "inf"], "--learning-rate: it is inf"),
        (["--epochs", "-1"], "--epochs: it is -1"),
        (["--steps", "0"], "--steps: it is 0, expected at least 1"),
        (["--batch-size", "0"], "--batch-size: it is 0"),
        (["--accumulation", "0"], "--accumulation: it is 0"),
        (["--warmup-ratio", "1.5"], "--warmup-ratio: it is 1.5, expected a number from 0 to 1"),
        (["--weight-decay", "-1"], "--weight-decay: it is -1"),
        (["--layer-decay", "nan"], "--layer-decay: it is NaN"),
        (["--clip-norm", "nan"], "--clip-norm: it is NaN"),
        (["--task-dropout", "1.5"], "--task-dropout: it is 1.5"),
        (["--task-dropout", "nan"], "--task-dropout: it is NaN"),
        (["--report-every", "0"], "--report-every: it is 0"),
        (["--evaluate-every", "0"], "--evaluate-every: it is 0"),
        (["--freeze-layers", "3"], "--freeze-layers: it is 3, expected at most 2"),
        (["--patience", "2"], "--patience: nothing can be judged without validation data: add --valid"),
        (["--sift-lambda", "3"], "--sift-lambda: it is for scale-invariant fine-tuning only: add --sift"),
        (["--sift-loss", "mse"], "--sift-loss: it is for scale-invariant fine-tuning only: add --sift"),
    ] {
        let mut command = case.classification("out");
        command.arg("--train").arg(&train).arg(format!("{}={}", flags[0], flags[1]));
        let error = error_line(command);
        assert!(error.contains(parts), "{error}");
        assert!(!case.path("out/model.safetensors").exists());
    }
    for flag in ["--sift-lambda", "--sift-step-size", "--sift-noise"] {
        let mut command = case.classification("out");
        command.arg("--train").arg(&train).args(["--sift", &format!("{flag}=nan")]);
        assert!(error_line(command).contains(&format!("{flag}: it is NaN")));
    }
    // A settings file is no way around it.
    let settings = case.file("nan.toml", "learning-rate = nan\n");
    let mut command = case.classification("out");
    command.arg("--train").arg(&train).arg("--settings").arg(&settings);
    assert!(error_line(command).contains("--learning-rate: it is NaN"));
}

#[test]
fn a_settings_file_gives_what_the_flags_do_not() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 20);
    let settings =
        case.file("run.toml", "\u{feff}learning-rate = 5e-4\nsteps = 4\nbatch-size = 5\nschedule = \"cosine\"\n");
    let mut command = case.classification("out");
    command.arg("--train").arg(&train).arg("--settings").arg(&settings).args(["--steps", "3"]);
    command.assert().success().stdout(contains("3 steps"));
    let settings = settings_of(&case.path("out"));
    assert_eq!((&settings["learning_rate"], &settings["batch_size"]), (&5e-4.into(), &5.into()));
    assert_eq!(settings["schedule"], "cosine");

    let wrong = case.file("wrong.toml", "learning-rates = 1\n");
    let mut command = case.classification("wrong");
    command.arg("--train").arg(&train).arg("--settings").arg(&wrong);
    command.assert().code(1).stderr(contains("wrong.toml").and(contains("learning-rates")));
}

#[test]
fn flags_win_over_their_rivals_in_a_settings_file() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 20);
    let run = |name: &str, file: &str, flags: &[&str]| {
        let settings = case.file("settings.toml", file);
        let mut command = case.classification(name);
        command.arg("--train").arg(&train).arg("--settings").arg(settings).args(["--batch-size", "10"]).args(flags);
        command
    };
    let settings = |name: &str| settings_of(&case.path(name));
    run("steps", "epochs = 50\nwarmup-steps = 7\n", &["--steps", "3", "--warmup-ratio", "0.4"]).assert().success();
    assert_eq!((&settings("steps")["steps"], &settings("steps")["warmup"]["ratio"]), (&3.into(), &0.4.into()));
    run("epochs", "steps = 50\nwarmup-ratio = 0.3\n", &["--epochs", "1", "--warmup-steps", "1"]).assert().success();
    assert_eq!((&settings("epochs")["steps"], &settings("epochs")["warmup"]["steps"]), (&Value::Null, &1.into()));
    assert_eq!(outcome(&case.path("epochs"))["steps"], 2);
    // The recipe comes last.
    run("recipe", "steps = 2\nrecipe = \"cola-base\"\nwarmup-steps = 1\n", &[]).assert().success();
    assert_eq!(outcome(&case.path("recipe"))["steps"], 2);

    let error = error_line(run("both", "steps = 2\nepochs = 1\n", &[]));
    assert!(error.contains("settings.toml: `epochs` and `steps` exclude each other"), "{error}");
}

#[test]
fn the_small_model_has_the_same_rate_by_name() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 4);
    let rate = |output: &str, flags: &[&str]| {
        let mut command = example("finetune_classification");
        command.arg("--output").arg(case.path(output)).arg("--train").arg(&train).args(["--steps", "1"]).args(flags);
        command.assert().success();
        settings_of(&case.path(output))["learning_rate"].clone()
    };
    assert_eq!(rate("default", &[]), 1e-3);
    assert_eq!(rate("named", &["--model", "./models/deberta-tiny/"]), 1e-3);
    assert_eq!(rate("other", &["--model", case.model.path().to_str().expect("an ASCII path")]), 2e-5);
}
