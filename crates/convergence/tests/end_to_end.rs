//! The program from end to end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use assert_cmd::assert::OutputAssertExt;
use convergence::{results::Row, variant::Variant};
use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

/// The folder that the program runs in.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Texts and a task in small, from the sentences that ship with the repository.
struct Case {
    files: TempDir,
}

impl Case {
    fn new() -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        let table = repository().join("examples/data/movie-reviews/train.tsv");
        let table = fs::read_to_string(table).expect("the repository's sentences");
        let rows: Vec<&str> = table.lines().skip(1).take(500).collect();
        let text = |rows: &[&str]| -> String {
            rows.iter().map(|row| row.split('\t').next().expect("a sentence").to_owned() + "\n\n").collect()
        };
        let labelled = |rows: &[&str]| format!("text\tlabel\n{}\n", rows.join("\n"));
        for (name, content) in [
            ("train.txt", text(&rows[..300])),
            ("valid.txt", text(&rows[300..350])),
            ("train.tsv", labelled(&rows[350..420])),
            ("valid.tsv", labelled(&rows[420..460])),
            ("test.tsv", labelled(&rows[460..])),
        ] {
            fs::write(files.path().join(name), content).expect("a file");
        }
        Self { files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The program with these texts.
    fn program(&self, output: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convergence"));
        command.current_dir(repository()).arg("--output").arg(self.path(output));
        command.arg("--train").arg(self.path("train.txt")).arg("--valid").arg(self.path("valid.txt"));
        command.arg("--downstream").arg(self.files.path());
        command
    }

    /// Two small models, two seeds.
    fn convergence(&self, output: &str) -> Command {
        let mut command = self.program(output);
        command.args(["--vocab-size", "300", "--max-length", "16", "--layers", "2", "--hidden", "8", "--heads", "2"]);
        command.args(["--steps", "8", "--batch-size", "8", "--seeds", "2"]);
        command
    }

    fn rows(&self, output: &str) -> Vec<Row> {
        let mut reader = csv::Reader::from_path(self.path(output).join("results.csv")).expect("results.csv");
        reader.deserialize().map(|row| row.expect("a row")).collect()
    }
}

/// When every file below a folder was written.
fn times(folder: &Path, times: &mut Vec<(PathBuf, SystemTime)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            self::times(&path, times);
        } else {
            times.push((path.clone(), fs::metadata(&path).and_then(|data| data.modified()).expect("a time")));
        }
    }
}

#[test]
fn an_experiment_is_run_once_and_reported() {
    let case = Case::new();
    case.convergence("out").assert().success().stdout(contains("RoBERTa").and(contains("report.html")));
    let rows = case.rows("out");
    // Evaluated at each of 8 steps, fine-tuned after 2, 4, 6 and 8.
    assert_eq!(rows.len(), 2 * 2 * 8);
    for (variant, seed) in [Variant::Roberta, Variant::Deberta].into_iter().flat_map(|v| [(v, 0), (v, 1)]) {
        let run: Vec<&Row> = rows.iter().filter(|row| (row.variant, row.seed) == (variant, seed)).collect();
        assert_eq!(run.iter().map(|row| row.step).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        assert!(run.is_sorted_by(|a, b| a.tokens < b.tokens && a.flops < b.flops && a.seconds < b.seconds));
        assert!(run.iter().all(|row| row.downstream_accuracy.is_some() == row.step.is_multiple_of(2)));
        // It begins at about the loss of a guess among 300 tokens (fresh weights guess a little worse) and learns something.
        let (first, last) = (run[0].validation_loss.unwrap(), run[7].validation_loss.unwrap());
        assert!((first - 300f64.ln()).abs() < 0.5 && last < first, "{first} {last}");
        // Fresh attention is about the same for all of 16 tokens.
        let (mean, best) = (run[0].neighbour_attention.unwrap(), run[0].best_neighbour_attention.unwrap());
        assert!((mean * 16.0 - 1.0).abs() < 0.2 && best > mean, "{mean} {best}");
    }

    let report = fs::read_to_string(case.path("out/report.html")).unwrap();
    for part in ["Parameters", "Validation loss", "Fine-tuned", "<svg", "SHA-256", "Processor", "optimiser steps"] {
        assert!(report.contains(part), "`{part}` is not in the report");
    }
    for outside in ["<script", "<link", "<img", " src=", "@import", "url("] {
        assert!(!report.contains(outside), "`{outside}` is in the report");
    }
    for figure in ["steps", "tokens", "flops", "seconds", "attention", "downstream"] {
        assert!(case.path(&format!("out/{figure}.svg")).exists(), "{figure}.svg");
    }

    let (mut before, mut after) = (Vec::new(), Vec::new());
    times(&case.path("out/runs"), &mut before);
    case.convergence("out").assert().success().stderr(contains("begins").not());
    times(&case.path("out/runs"), &mut after);
    assert_eq!(before, after);
    case.convergence("out").args(["--steps", "9"]).assert().code(1).stderr(contains("with other settings or texts"));
}

#[test]
fn a_killed_experiment_goes_on() {
    let case = Case::new();
    let start = |output: &str| {
        let mut command = case.convergence(output);
        command.args(["--ablation", "--seeds", "1", "--tune", "1e-3,3e-3", "--tune-seeds", "2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    start("whole").assert().success();
    let mut killed = start("killed").spawn().expect("a process");
    while !case.path("killed/runs/roberta-seed-0/metrics.csv").exists() {
        assert!(killed.try_wait().expect("a process").is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(1));
    }
    killed.kill().expect("SIGKILL");
    killed.wait().expect("an exit");
    start("killed").assert().success();
    let rows = |output| -> Vec<Row> { case.rows(output).into_iter().map(|row| Row { seconds: 0.0, ..row }).collect() };
    assert_eq!(rows("whole"), rows("killed"));
    assert_eq!(rows("whole").len(), 9 * 8);
    let report = fs::read_to_string(case.path("killed/report.html")).unwrap();
    assert!(report.contains("(best)") && report.contains("\u{2212} (c2p + p2c)"));
    // Steps and time of the Switch layers beside the dense model; and they are no copies of it.
    assert!(report.contains("Switch, 8 experts") && report.contains("to DeBERTa&#39;s final validation loss"));
    let last = |variant| rows("whole").into_iter().rfind(|row| row.variant == variant).expect("a run");
    let [dense, four, eight] = [Variant::Deberta, Variant::Switch4, Variant::Switch8].map(last);
    assert_eq!([dense.flops; 2], [four.flops, eight.flops]);
    assert!(four.validation_loss != dense.validation_loss && four.validation_loss != eight.validation_loss);
    // Two models, two rates, two seeds; the report has their means.
    let runs = fs::read_dir(case.path("killed/runs")).expect("a folder").map(|entry| entry.expect("an entry"));
    let runs = runs.map(|entry| entry.file_name().into_string().expect("a name"));
    assert_eq!(runs.filter(|name| name.starts_with("tuning-")).count(), 8);
    let metrics = |seed: u64| case.path(&format!("killed/runs/tuning-roberta-0.003-seed-{seed}/metrics.csv"));
    let loss = |seed: u64| {
        let mut reader = csv::Reader::from_path(metrics(seed)).expect("metrics.csv");
        let column = reader.headers().expect("a header").iter().position(|name| name == "loss").expect("losses");
        reader.records().last().expect("an evaluation").expect("a line")[column].parse::<f64>().expect("a loss")
    };
    let mean = (loss(1000) + loss(1001)) / 2.0;
    assert!(report.contains(&format!("<td>{mean:.4} \u{b1} ")), "{mean} is not in the report");
}

/// Seeds add up over output folders, and the time is divided up as one likes.
#[test]
fn runs_of_other_folders_are_merged() {
    let case = Case::new();
    let run = |output: &str, arguments: &[&str]| case.convergence(output).args(arguments).assert();
    let only_prepares = ["--seeds", "1-1", "--minutes", "0"];
    run("other", &only_prepares).success().stdout(contains("the time is up"));
    let begun = |name: &str| case.path(&format!("other/runs/{name}-seed-1/metrics.csv")).exists();
    assert!(!begun("roberta") && case.path("other/cache").exists());
    run("other", &["--seeds", "1-1"]).success();
    assert!(begun("roberta") && begun("deberta"));

    let other = case.path("other").display().to_string();
    run("own", &["--seeds", "1", "--merge", &other]).success();
    run("whole", &["--seeds", "2"]).success();
    let rows = |output| {
        let mut rows: Vec<_> = case.rows(output).into_iter().map(|row| Row { seconds: 0.0, ..row }).collect();
        rows.sort_by_key(|row| (row.variant, row.seed, row.step));
        rows
    };
    assert_eq!(rows("own"), rows("whole"));

    let is_refused = |arguments: &[&str], problem: &str| {
        let merge = [&["--seeds", "1", "--merge", &other], arguments].concat();
        run("third", &merge).code(1).stderr(contains(problem));
    };
    is_refused(&["--seeds", "1-1"], "with the seed 1 already");
    is_refused(&["--output", &case.path("fourth").display().to_string(), "--steps", "4"], "`steps` is 8, expected 4");
    is_refused(&["--merge", &case.path("out").display().to_string()], "out/runs");
    // A seed of which one model is not finished does not count.
    fs::remove_dir_all(case.path("other/runs/deberta-seed-1")).expect("a run");
    is_refused(&[], "no seed is finished in it");
}

/// What is meant for a GPU, with the sizes and the type that it has there, for as many steps as a CPU has time for.
#[test]
fn the_preset_for_gpus_runs_on_a_cpu() {
    let case = Case::new();
    let small = ["--device", "flex", "--vocab-size", "500", "--steps", "3", "--batch-size", "2", "--seeds", "1"];
    case.program("gpu").args(["--preset", "gpu-minutes"]).args(small).assert().success();
    for variant in Variant::PAIR {
        let rows = case.rows("gpu");
        let last = rows.iter().rfind(|row| row.variant == variant).expect("a row of each model");
        assert!(last.step == 3 && last.validation_loss.is_some_and(f64::is_finite), "{last:?}");
    }
    let report = fs::read_to_string(case.path("gpu/report.html")).expect("a report");
    assert!(report.contains("bf16"), "the precision is not in the report");
}

#[test]
fn bad_input_is_named() {
    let case = Case::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let assert = case.convergence("bad").args(arguments).assert().code(1);
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        let line = error.lines().last().unwrap_or_default();
        assert!(line.starts_with("error: ") && parts.iter().all(|part| line.contains(part)), "{error}");
    };
    fails(&["--hidden", "9"], &["num_attention_heads", "hidden_size, which is 9"]);
    fails(&["--init-scale", "key_proj=2,lstm=2"], &["--init-scale", "`lstm`", "backbone.embeddings"]);
    fails(&["--warmup-ratio", "2"], &["--warmup-ratio", "from 0 to 1"]);
    fails(&["--device", "tpu"], &["tpu", "expected one of"]);
    fails(&["--device", "ndarray", "--precision", "f16"], &["ndarray", "does not compute in f16"]);
    fails(&["--downstream", "nowhere"], &["nowhere/train.tsv"]);
    fails(&["--vocab-size", "20"], &["size", "20", "expected at least"]);
    fs::write(case.path("valid.tsv"), "text\tlabel\nfine\tfurious\n").expect("a file");
    fails(&[], &["error: run ", "-seed-0: ", "valid.tsv, line 2", "furious"]);
    fs::write(case.path("train.txt"), b"caf\xe9\n").expect("a file");
    fails(&[], &["train.txt", "line 1"]);
    assert!(!case.path("bad/report.html").exists());
}
