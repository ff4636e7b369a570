//! The `pretrain` example as a program: what it leaves, and that a run that is killed goes on.

#[path = "support/runs.rs"]
mod runs;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use assert_cmd::assert::OutputAssertExt;
use deberta_burn::{
    DebertaConfig,
    heads::{MaskedLm, MaskedLmLayout},
};
use predicates::{prelude::*, str::contains};
use runs::{Case, example, kill_and_resume, outcome};
use serde_json::Value;
use support::{config, folder, repository::fixture};

/// A fresh model and a text to pretrain it on.
struct Pretraining {
    case: Case,
    text: PathBuf,
}

impl Pretraining {
    fn new() -> Self {
        let config = DebertaConfig { initializer_range: 0.05, ..config(&[]) };
        let model = folder(config, |config, device| {
            MaskedLm::new(config, MaskedLmLayout::EnhancedMaskDecoder, device).expect("two layers")
        });
        let case = Case::new(model);
        let text: String = (0..200).map(|_| "the cat sat on the mat and the dog sat on the cat\n\n").collect();
        let text = case.file("text.txt", &text);
        Self { case, text }
    }

    fn start(&self, output: &str, steps: &str) -> Command {
        self.start_from(self.case.model.path(), output, steps)
    }

    fn start_from(&self, model: &Path, output: &str, steps: &str) -> Command {
        let mut command = example("pretrain");
        command.arg("--model").arg(model).arg("--output").arg(self.case.path(output));
        command.arg("--train").arg(&self.text).arg("--valid").arg(&self.text).args(["--max-length", "32"]);
        command.args(["--steps", steps, "--learning-rate", "3e-3", "--batch-size", "8", "--masking", "word"]);
        command
    }

    /// The model of an output folder guesses a word.
    fn guess(&self, output: &str) {
        let mut fill = example("fill_mask");
        fill.arg("--model").arg(self.case.path(output)).arg("the cat sat on the [MASK]");
        fill.assert().success();
    }
}

#[test]
fn words_can_be_learnt_and_guessed() {
    let pretraining = Pretraining::new();
    let mut command = pretraining.start("words", "150");
    command.args(["--evaluate-every", "30"]).assert().success().stdout(contains("perplexity"));
    let loss = outcome(&pretraining.case.path("words"))["valid"]["loss"].as_f64().unwrap();
    // A model that knows nothing has the logarithm of 1,540 words, 7.3, or worse.
    assert!(loss < 5.0, "{loss}");
    pretraining.guess("words");
    let mut command = pretraining.start("flag", "1");
    command.args(["--sharing", "shared"]).assert().code(1).stderr(contains("add --objective rtd"));
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let pretraining = Pretraining::new();
    let config = DebertaConfig { vocab_size: 1000, ..config(&[]) };
    let model = folder(config, |config, device| {
        MaskedLm::new(config, MaskedLmLayout::EnhancedMaskDecoder, device).expect("two layers")
    });
    let mut command = pretraining.start_from(model.path(), "few", "1");
    command.assert().code(1).stderr(contains("vocab_size").and(contains("the tokens of its tokenizer")));
}

#[test]
fn replaced_tokens_can_be_learnt_and_found() {
    let pretraining = Pretraining::new();
    kill_and_resume(&pretraining.case, 4, |output| {
        let mut command = pretraining.start(output, "60");
        command.args(["--objective", "rtd", "--accumulation", "2", "--evaluate-every", "6", "--report-every", "2"]);
        command
    });
    let folder = pretraining.case.path("killed");
    let whole = pretraining.case.path("whole/generator/model.safetensors");
    let generator = fs::read(folder.join("generator/model.safetensors")).unwrap();
    assert!(fs::read(whole).unwrap() == generator, "the generators differ");
    let table = fs::read_to_string(folder.join("metrics.csv")).unwrap();
    for column in ["train_generator_loss", "train_discriminator_loss", "discriminator_loss", "recall"] {
        assert!(table.lines().next().unwrap().split(',').any(|name| name == column), "{column}");
    }
    let loss = outcome(&folder)["valid"]["generator_loss"].as_f64().unwrap();
    // As above: the generator learns.
    assert!(loss < 7.0, "{loss}");
    pretraining.guess("killed/generator");

    // The discriminator is a checkpoint like any other: it can be fine-tuned, and gone on with.
    let mut command = example("finetune_classification");
    command.arg("--model").arg(&folder).arg("--output").arg(pretraining.case.path("tuned"));
    command.arg("--train").arg(pretraining.case.reviews("train.tsv", 20)).args(["--steps", "2"]);
    command.assert().success();
    let mut command = pretraining.start_from(&folder, "further", "2");
    command.args(["--objective", "rtd", "--sharing", "none"]);
    command.assert().success();
}

#[test]
fn experts_begin_as_the_dense_network_and_go_on_after_a_kill() {
    for (objective, guesser) in [("mlm", "whole"), ("rtd", "whole/generator")] {
        let pretraining = Pretraining::new();
        kill_and_resume(&pretraining.case, 2, |output| {
            let mut command = pretraining.start(output, "60");
            command.args(["--experts", "3", "--objective", objective, "--evaluate-every", "6", "--report-every", "2"]);
            command
        });
        let table = fs::read_to_string(pretraining.case.path("whole/metrics.csv")).unwrap();
        for column in ["router_least", "router_most", "router_overflow", "router_entropy", "router_balance"] {
            assert!(table.lines().next().unwrap().split(',').any(|name| name == column), "{objective}: {column}");
        }
        pretraining.guess(guesser);
        let mut command = pretraining.start_from(&pretraining.case.path("whole"), "again", "1");
        command.args(["--experts", "3"]).assert().code(1).stderr(contains("Switch layers already"));
    }
}

#[test]
fn mixed_precision_pretrains_and_goes_on_after_a_kill() {
    for (objective, precision) in [("mlm", "bf16"), ("rtd", "f16")] {
        let pretraining = Pretraining::new();
        kill_and_resume(&pretraining.case, 2, |output| {
            let mut command = pretraining.start(output, "60");
            command.args(["--objective", objective, "--precision", precision, "--experts", "3", "--accumulation", "2"]);
            command.args(["--evaluate-every", "6", "--report-every", "2"]);
            command
        });
        let valid = &outcome(&pretraining.case.path("whole"))["valid"];
        let loss = valid.get("generator_loss").unwrap_or(&valid["loss"]).as_f64().unwrap();
        // As above.
        assert!(loss < 7.0, "{objective}: {loss}");
    }
}

#[test]
fn one_expert_answers_as_the_dense_network() {
    let pretraining = Pretraining::new();
    let mut convert = example("convert");
    convert.arg("--model").arg(pretraining.case.model.path()).arg("--output").arg(pretraining.case.path("converted"));
    convert.args(["--experts", "1", "--dtype", "f32"]).assert().success();
    let guess = |model: &Path| {
        let mut fill = example("fill_mask");
        let output = fill.arg("--model").arg(model).arg("the cat sat on the [MASK]").output().unwrap();
        output.stdout
    };
    let answer = guess(pretraining.case.model.path());
    assert!(!answer.is_empty() && guess(&pretraining.case.path("converted")) == answer);
}

#[test]
fn models_are_pretrained_from_scratch() {
    let case = Pretraining::new().case;
    let text = case.file("text.txt", &"the cat sat on the mat and the dog sat on the cat\n\n".repeat(40));
    let deberta = case.file("deberta.json", &config(&[]).to_json());
    let roberta = case.file(
        "roberta.json",
        r#"{"model_type": "roberta", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 40, "type_vocab_size": 1}"#,
    );
    let start = |config: &Path, output: &str| {
        let mut command = example("pretrain");
        command.arg("--config").arg(config).arg("--tokenizer").arg(fixture("small_tokenizer"));
        command.arg("--train").arg(&text).args(["--max-length", "32", "--steps", "3", "--batch-size", "8"]);
        command.arg("--output").arg(case.path(output));
        command
    };
    for (config, name) in [(&deberta, "deberta"), (&roberta, "roberta")] {
        start(config, name).assert().success();
        let mut fill = example("fill_mask");
        fill.arg("--model").arg(case.path(name)).arg("the cat sat on the [MASK]").assert().success();
        let text = fs::read_to_string(case.path(&format!("{name}/config.json"))).expect("config.json");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        // A row a token, whatever the configuration said; the tokenizer's padding.
        assert_eq!((&config["vocab_size"], &config["pad_token_id"]), (&1536.into(), &0.into()), "{name}");
    }
    start(&deberta, "rtd").args(["--objective", "rtd"]).assert().success();
    assert!(case.path("rtd/generator/model.safetensors").exists());

    let mut command = start(&roberta, "none");
    command.args(["--objective", "rtd"]).assert().code(1).stderr(contains("the model is a RoBERTa"));
    let unknown = contains("deberta-v9").and(contains("no such file")).and(contains("deberta-v3-small"));
    start(Path::new("deberta-v9"), "none").assert().code(1).stderr(unknown);
}
