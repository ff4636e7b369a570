//! GLiNER's fine-tuning as a program: what it learns, what it refuses, and a run that is killed.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::fs;

use assert_cmd::assert::OutputAssertExt;
use deberta_burn::data::Random;
use predicates::{prelude::*, str::contains};
use runs::{Case, error_of, example, kill_and_resume, outcome};

/// Texts whose words alone say what is an entity: some are a person, some a thing.
fn entity_rows(case: &Case, name: &str, rows: usize) -> std::path::PathBuf {
    let (persons, things, others) =
        (["king", "man", "people"], ["war", "ship", "house"], ["the", "was", "and", "of", "in", "year"]);
    let mut random = Random::new(&[rows as u64]);
    let mut pick = |words: &[&'static str]| words[random.below(words.len())];
    let row = |index: usize| {
        let [other, person, thing] = [pick(&others), pick(&persons), pick(&things)];
        // A thing may have two words, and every fourth row has no person.
        let end = 3 + index % 2;
        let mut words = vec![other, if index.is_multiple_of(4) { "of" } else { person }, "and", thing];
        words.extend([thing, "in"].into_iter().filter(|_| end == 4));
        let person = if index.is_multiple_of(4) { String::new() } else { r#"[1, 1, "person"], "#.to_owned() };
        format!("{{\"tokenized_text\": {words:?}, \"ner\": [{person}[3, {end}, \"thing\"]]}}\n")
    };
    case.file(name, &(0..rows).map(row).collect::<String>())
}

#[test]
fn gliner_learns_and_its_folder_answers() {
    let case = Case::with_classifier();
    let (train, valid) = (entity_rows(&case, "train.jsonl", 400), entity_rows(&case, "valid.jsonl", 40));
    let run = |output: &str, flags: &[&str]| {
        let mut command = example("finetune_gliner");
        command
            .arg("--train")
            .arg(&train)
            .arg("--valid")
            .arg(&valid)
            .arg("--output")
            .arg(case.path(output))
            .args(flags);
        command.args(["--batch-size", "8"]);
        command
    };
    // The same weights each time: from some, so few steps do not get far.
    let mut init = example("init_checkpoint");
    init.arg("--config").arg(case.model.path().join("config.json")).args(["--seed", "1"]);
    init.arg("--output").arg(case.path("base")).assert().success();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(case.model.path().join(file), case.path("base").join(file)).expect("a tokenizer");
    }
    let model = case.path("base").to_str().expect("an ASCII path").to_owned();
    let model = model.as_str();
    let f1 = |output: &str| outcome(&case.path(output))["valid"]["f1"].as_f64().expect("a figure");
    for (mode, flags) in [
        ("marker-v0", &["--types", "all"][..]),
        ("marker", &["--focal-alpha", "0.75", "--focal-gamma", "2"]),
        ("token-level", &["--sift"]),
    ] {
        let mut command = run(mode, &["--model", model, "--span-mode", mode, "--task-dropout", "0", "--epochs", "20"]);
        command
            .args(["--learning-rate", "5e-3"])
            .args(flags)
            .assert()
            .success()
            .stdout(contains("f1_person").and(contains("f1_thing")));
        // A model that finds nothing has 0, one that takes each word for both types at most 1/3.
        assert!(f1(mode) > 0.8, "{mode}: {}", f1(mode));
        let mut gliner = example("gliner");
        gliner.arg("--model").arg(case.path(mode)).args(["--labels", "person,thing", "the king and ship"]);
        gliner.assert().success().stdout(contains("person").and(contains("thing")));
    }
    // A low-rank change, merged: nothing but weights of the same names.
    run("lora", &["--model", model, "--lora", "4", "--epochs", "1"])
        .assert()
        .success()
        .stdout(contains("the model of"));
    assert!(!case.path("lora/adapter_config.json").exists());
    let mut gliner = example("gliner");
    gliner.arg("--model").arg(case.path("lora")).args(["--labels", "person", "the king"]).assert().success();
    // It goes on from such a folder, with its layers and settings.
    let folder = case.path("marker-v0").to_str().expect("an ASCII path").to_owned();
    let again = run("again", &["--model", &folder, "--steps", "1", "--learning-rate", "1e-6"]).assert().success();
    assert!(!String::from_utf8_lossy(&again.get_output().stderr).contains("fresh values"));
    // A step of that size changes next to nothing.
    assert!((f1("again") - f1("marker-v0")).abs() < 0.05);
    let other = error_of(run("other", &["--model", &folder, "--span-mode", "token-level"]));
    assert!(other.contains("--span-mode: it is token_level, but the model in") && other.contains("is a markerV0"));
    let tagger = case.file("bad.jsonl", r#"{"tokenized_text": ["a"], "ner": [[0, 1, "x"]]}"#);
    let bad = error_of(run("bad", &["--model", model, "--test", tagger.to_str().expect("an ASCII path")]));
    assert!(bad.contains("bad.jsonl, line 1: its entity [0, 1, \"x\"] is not within its words"), "{bad}");
    let types: Vec<_> = (0..40).map(|kind| format!(r#"[0, 0, "kind {kind}"]"#)).collect();
    let many = case.file("many.jsonl", &format!(r#"{{"tokenized_text": ["a"], "ner": [{}]}}"#, types.join(", ")));
    let many = error_of(run("many", &["--model", model, "--test", many.to_str().expect("an ASCII path")]));
    assert!(many.contains("many.jsonl, line 1: ") && many.contains("the 40 labels take"), "{many}");
    assert!(many.contains("(`ner_labels`)"), "{many}");
}

#[test]
fn long_texts_are_learned_in_windows() {
    let case = Case::with_classifier();
    let words = vec!["war"; 100];
    let row =
        format!("{{\"tokenized_text\": {words:?}, \"ner\": [[0, 0, \"x\"], [99, 99, \"x\"], [20, 60, \"x\"]]}}\n");
    let train = case.file("train.jsonl", &row.repeat(2));
    let mut command = example("finetune_gliner");
    command.arg("--model").arg(case.model.path()).arg("--output").arg(case.path("out")).args(["--steps", "2"]);
    command.arg("--train").arg(&train).arg("--valid").arg(&train);
    // No model takes more than 12 words for one entity, and this one no more than 32 tokens at once.
    let said = contains("2 of 6 entities have more than 12 words").and(contains("too long").not());
    command.assert().success().stderr(said);
}

#[test]
fn a_killed_run_of_gliner_goes_on_as_if_nothing_had_happened() {
    let case = Case::with_classifier();
    let (train, valid) = (entity_rows(&case, "train.jsonl", 200), entity_rows(&case, "valid.jsonl", 20));
    kill_and_resume(&case, 3, |output| {
        let mut command = example("finetune_gliner");
        command.arg("--model").arg(case.model.path()).arg("--output").arg(case.path(output));
        command.arg("--train").arg(&train).arg("--valid").arg(&valid);
        command.args(["--steps", "80", "--batch-size", "8", "--accumulation", "2", "--evaluate-every", "6"]);
        command.args(["--learning-rate", "1e-3", "--report-every", "2", "--precision", "f16"]);
        command
    });
}
