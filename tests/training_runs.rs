//! Training runs as programs: what they refuse, how they end when they diverge, and what one resumes as.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::{fs, path::Path, process::Command};

use assert_cmd::assert::OutputAssertExt;
use burn::tensor::DType;
use classifier::kill_when_saved;
use deberta_burn::checkpoint::Checkpoint;
use predicates::{prelude::*, str::contains};
use runs::{Case, assert_whole, error_line, example, figures, losses};
use serde_json::Value;

#[test]
fn adapters_are_trained_merged_and_refused_alone() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 40);
    let run = |output: &str, flags: &[&str]| {
        let mut command = case.classification(output);
        command.arg("--train").arg(&train).args(["--steps", "6", "--learning-rate", "0.02"]).args(flags);
        command
    };
    let lora = ["--lora", "2", "--lora-targets", "all", "--lora-alpha", "8"];
    run("adapter", &lora).assert().success().stdout(contains("the adapter of step 6 is in"));
    let adapter = case.path("adapter");
    assert!(!adapter.join("model.safetensors").exists());
    let mut convert = example("convert");
    convert.arg("--model").arg(case.model.path()).arg("--adapter").arg(&adapter);
    convert.args(["--dtype", "f32", "--output"]).arg(case.path("merged"));
    convert.assert().success();

    let classify = |model: &Path, adapter: Option<&Path>| {
        let mut command = example("classify");
        command.arg("--model").arg(model).args(["--json", "war and peace"]);
        adapter.map(|adapter| command.arg("--adapter").arg(adapter));
        command
    };
    let answer = |command: &mut Command| String::from_utf8(command.output().expect("a process").stdout).expect("UTF-8");
    let adapted = answer(&mut classify(case.model.path(), Some(&adapter)));
    // The labels are the data's, and no longer the model's.
    assert!(adapted.contains("glad") && adapted.contains("sad"), "{adapted}");
    assert_eq!(adapted, answer(&mut classify(&case.path("merged"), None)));
    assert!(error_line(classify(&adapter, None)).contains("PEFT adapter alone"));

    let error_of = |flags: &[&str]| error_line(run("refused", flags));
    assert!(error_of(&["--lora-alpha", "8"]).contains("--lora-alpha: it is for low-rank adapters only: add --lora"));
    assert!(error_of(&["--lora", "0"]).contains("--lora: it is 0, expected a number above 0"));
    let unknown = error_of(&["--lora", "2", "--lora-targets", "query,keys"]);
    assert!(unknown.contains("--lora-targets: unknown variant `keys`"), "{unknown}");
    assert!(error_of(&["--lora", "2", "--freeze-layers", "1"]).contains("--lora: it freezes the backbone"));
    // A finished adapter is not written over.
    assert!(error_line(run("adapter", &lora)).contains("a finished run is in this folder"));
}

#[test]
fn no_run_writes_over_another_checkpoint() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 20);
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).expect("weights");
    let before = weights(case.model.path());
    let run = |output: &Path| {
        let mut command = example("finetune_classification");
        command.arg("--model").arg(case.model.path()).arg("--train").arg(&train).args(["--steps", "1"]);
        command.arg("--output").arg(output);
        command
    };
    let mut spellings = vec![case.model.path().to_owned(), case.model.path().join(".").join("..")];
    spellings[1].push(case.model.path().file_name().expect("a name"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(case.model.path(), case.path("link")).expect("a link");
        spellings.push(case.path("link"));
    }
    for output in spellings {
        let error = error_line(run(&output));
        assert!(error.contains("--output") && error.contains("the folder of --model"), "{error}");
    }
    // Another checkpoint, whole or in part.
    let other = case.path("other");
    fs::create_dir(&other).expect("a folder");
    for file in ["model.safetensors", "config.json"] {
        fs::copy(case.model.path().join(file), other.join(file)).expect("a copy");
        let error = error_line(run(&other));
        assert!(error.contains(&format!("a checkpoint that is not of this run ({file})")), "{error}");
        fs::remove_file(other.join(file)).expect("gone");
    }
    // The state of another run.
    fs::create_dir(other.join("checkpoint-5")).expect("a folder");
    let error = error_line(run(&other));
    assert!(error.contains("it holds `checkpoint-5`, which is not of this run"), "{error}");
    fs::remove_dir(other.join("checkpoint-5")).expect("gone");
    assert!(weights(case.model.path()) == before, "the model was changed");
    run(&other).assert().success();
}

#[test]
fn a_resumed_run_has_to_be_the_same() {
    let case = Case::with_classifier();
    let rows: String = (0..20).map(|row| format!("text {row},{},{}\n", row % 2, row % 3 % 2)).collect();
    let train = case.file("train.csv", &format!("text,label,other\n{rows}"));
    let start = |flags: &[&str]| {
        let mut command = case.classification("out");
        command.arg("--train").arg(&train).args(["--steps", "100000", "--evaluate-every", "2", "--resume"]);
        command.args(["--batch-size", "4"]).args(flags);
        command
    };
    kill_when_saved(start(&[]), &case.path("out"));
    for (flags, part) in [
        (["--label-column", "other"], "data.columns.2 was \"label\", now it is \"other\""),
        (["--task-dropout", "0.3"], "config.cls_dropout was not there, now it is 0.3"),
        (["--precision", "bf16"], "settings.precision was \"f32\", now it is \"bf16\""),
        (["--device", "ndarray"], "devices.0 was \"flex\", now it is \"ndarray\""),
        (["--max-length", "9"], "data.max_length was 32, now it is 9"),
        (["--seed", "1"], "settings.seed was 0, now it is 1"),
        (["--weight-decay", "0.02"], "settings.optimizer.weight_decay was 0.01, now it is 0.02"),
    ] {
        let error = error_line(start(&flags));
        assert!(error.contains("another one") && error.contains(part), "{error}");
    }
    // Another text, another tokenizer, other weights.
    let original = fs::read(&train).expect("the texts");
    fs::write(&train, fs::read_to_string(&train).expect("the texts").replace("text 3", "text 4")).expect("a file");
    assert!(error_line(start(&[])).contains("data.train.sha256"));
    fs::write(&train, original).expect("a file");

    let path = case.model.path().join("tokenizer.json");
    let original = fs::read(&path).expect("a tokenizer");
    let written = case.path("out/tokenizer.json");
    let before = fs::read(&written).expect("the run's tokenizer");
    let mut tokenizer: Value = serde_json::from_slice(&original).expect("JSON");
    tokenizer["model"]["vocab"][100][1] = (-5.0).into();
    fs::write(&path, tokenizer.to_string()).expect("a file");
    assert!(error_line(start(&[])).contains("tokenizer was"));
    assert!(fs::read(&written).expect("the run's tokenizer") == before, "the tokenizer was replaced");
    fs::write(&path, original).expect("a file");

    let path = case.model.path().join("model.safetensors");
    let mut weights = fs::read(&path).expect("weights");
    *weights.last_mut().expect("a byte") ^= 1;
    fs::write(&path, weights).expect("a file");
    assert!(error_line(start(&[])).contains("data.model.sha256"));
}

#[test]
fn a_run_that_diverges_ends_with_its_best_model_kept() {
    let case = Case::with_classifier();
    let (train, valid) = (case.reviews("train.tsv", 40), case.reviews("valid.tsv", 20));
    let start = |output: &str, rate: &str| {
        let mut command = case.classification(output);
        command.arg("--train").arg(&train).args(["--steps", "20", "--batch-size", "8", "--warmup-ratio", "0.5"]);
        command.args(["--learning-rate", rate]);
        command
    };
    // The first step of a warmup changes nothing: its model is good. Some rates blow up the loss, others the weights.
    for rate in ["1e12", "1e30", "1e38"] {
        let mut command = start(rate, rate);
        command.arg("--valid").arg(&valid).args(["--evaluate-every", "1"]);
        let error = error_line(command);
        assert!(error.contains("training ended at step") && error.contains("--learning-rate is 1"), "{error}");
        let folder = case.path(rate);
        assert!(error.contains("the best model so far, of step ") && error.contains(rate), "{error}");
        assert_whole(&folder);
        assert!(!folder.join("training.json").exists());
        let mut classify = example("classify");
        classify.arg("--model").arg(&folder).arg("the film was good").assert().success().stdout(contains("glad"));
    }
    let none = error_line(start("none", "1e30"));
    assert!(none.contains("no model was kept, for none had been evaluated (--evaluate-every)"), "{none}");
    assert!(!case.path("none/model.safetensors").exists());
}

#[test]
fn mixed_precision_trains_every_head() {
    let case = Case::with_classifier();
    let reviews = case.reviews("train.tsv", 20);
    let sentences = case.file("train.conll", "Ada B-PER\nwrote O\n\nLondon B-LOC\nis O\nold O\n");
    let questions = case.file(
        "train.json",
        r#"{"data": [{"paragraphs": [{"context": "Ada lived in London.", "qas": [
            {"id": "1", "question": "Where?", "answers": [{"text": "London", "answer_start": 13}]}]}]}]}"#,
    );
    let choices = case
        .file("train.jsonl", "{\"prompt\": \"It rains.\", \"choices\": [\"Take a coat.\", \"Swim.\"], \"label\": 0}\n");
    for precision in ["bf16", "f16"] {
        for (task, train) in
            [("classification", &reviews), ("ner", &sentences), ("qa", &questions), ("choice", &choices)]
        {
            let output = case.path(&format!("{task}-{precision}"));
            let mut command = example(&format!("finetune_{task}"));
            command.arg("--model").arg(case.model.path()).arg("--train").arg(train).arg("--valid").arg(train);
            command.arg("--output").arg(&output).args([
                "--steps",
                "2",
                "--batch-size",
                "2",
                "--sift",
                "--precision",
                precision,
            ]);
            command.assert().success();
            let checkpoint = Checkpoint::open(&output).expect("a checkpoint");
            assert!(checkpoint.tensors().all(|(_, found, _)| found == DType::F32), "{task}");
        }
    }
}

/// Mixed precision learns as f32 does, and is resumed to the bit, the scale of the loss included.
#[test]
fn mixed_precision_learns_and_resumes() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 80);
    let start = |precision: &str, output: &str, steps: &str| {
        let mut command = case.classification(output);
        command.arg("--train").arg(&train).args(["--learning-rate", "3e-3", "--batch-size", "16", "--resume"]);
        command.args(["--schedule", "constant", "--report-every", "20", "--evaluate-every", "20"]);
        command.args(["--precision", precision, "--steps", steps]);
        command
    };
    for precision in ["f32", "bf16", "f16"] {
        start(precision, precision, "200").assert().success();
        let losses = losses(&case.path(precision));
        // Of 24 runs with other models, seeds and types the worst ended at 0.38 of the first loss, the median at 0.03.
        assert!(losses[9] < 0.9 * losses[0], "{precision}: {losses:?}");
    }
    for precision in ["bf16", "f16"] {
        let output = format!("{precision}-killed");
        kill_when_saved(start(precision, &output, "200"), &case.path(&output));
        start(precision, &output, "200").assert().success();
        assert_eq!(figures(&case.path(precision)), figures(&case.path(&output)));
    }
}

#[test]
fn a_device_without_the_type_is_refused_before_anything_is_read() {
    let mut command = example("finetune_classification");
    command.args(["--model", "nowhere", "--device", "ndarray", "--precision", "f16"]);
    assert_eq!(
        error_line(command),
        "error: device `ndarray`: it does not compute in f16 (--precision); train in f32, or on another device"
    );
}

/// On one processor with one number of threads. (Another number splits the sums of attention's backward pass otherwise.)
#[test]
fn a_run_repeats_to_the_bit() {
    let case = Case::with_classifier();
    let train = case.reviews("train.tsv", 80);
    let run = |threads: &str, output: &str| {
        let mut command = case.classification(output);
        command.arg("--train").arg(&train).args([
            "--steps",
            "6",
            "--batch-size",
            "16",
            "--sift",
            "--report-every",
            "1",
        ]);
        command.env("RAYON_NUM_THREADS", threads).assert().success();
        (figures(&case.path(output)), fs::read(case.path(output).join("model.safetensors")).expect("weights"))
    };
    for threads in ["1", "2", "5"] {
        let [first, second] = ["first", "second"].map(|name| run(threads, &format!("{name}-{threads}")));
        assert!(first == second, "with {threads} threads");
    }
}

#[test]
fn texts_that_are_cut_are_counted_once() {
    let case = Case::with_classifier();
    let train = case.file("train.csv", "text,label\nwar,x\nthe cat sat on the mat and the dog sat on the cat,y\n");
    let valid = case.file("valid.csv", "text,label\nthe cat sat on the mat and the dog sat on the cat,y\n");
    let start = |length: &str| {
        let mut command = case.classification(length);
        command.arg("--train").arg(&train).arg("--valid").arg(&valid).args(["--steps", "1", "--max-length", length]);
        command
    };
    let cut = contains("2 texts were too long and cut to 6 tokens").count(1);
    start("6").assert().success().stderr(cut);
    let clamped = contains("--max-length is 100, but the model was trained with 32 tokens").count(1);
    start("100").assert().success().stderr(clamped.and(contains("too long").not()));
}
