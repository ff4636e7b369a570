//! Vectors of texts, learned by `finetune_embed` as a program: from pairs, in several sizes, and beside given vectors.

#[path = "support/classifier.rs"]
mod classifier;
#[path = "support/runs.rs"]
mod runs;
mod support;

use std::{fs, ops::Range, path::PathBuf};

use assert_cmd::assert::OutputAssertExt;
use burn::tensor::Device;
use deberta_burn::{
    Backbone, DebertaConfig, ModelConfig,
    data::Random,
    heads::{Pooling, TextEncoder},
    pipeline::EmbedOptions,
    training::Objective,
};
use predicates::str::contains;
use runs::{Case, error_of, example, outcome};
use safetensors::{Dtype, tensor::TensorView};
use support::{config, folder};

const WORDS: [&str; 12] =
    ["war", "peace", "law", "nation", "king", "truth", "money", "ship", "river", "house", "people", "year"];

#[test]
fn encoders_learn_from_pairs_and_their_folder_embeds() {
    let case = Case::with_classifier();
    // Texts belong together that have a word in common.
    let row = |index: usize| {
        let (word, other) = (WORDS[index % 12], WORDS[(index + 1 + index / 12 % 11) % 12]);
        let negative =
            if index.is_multiple_of(2) { format!(r#", "negative": "the {other} of the land""#) } else { String::new() };
        format!(r#"{{"text": "a {word} {word}", "positive": "{word} and {word}"{negative}}}"#) + "\n"
    };
    let train = case.file("train.jsonl", &(0..240).map(row).collect::<String>());
    let valid = case.file("valid.jsonl", &(0..12).map(row).collect::<String>());
    let run = |flags: &[&str]| {
        let mut command = example("finetune_embed");
        command.arg("--model").arg(case.model.path()).arg("--train").arg(&train).arg("--valid").arg(&valid).args(flags);
        command.args(["--epochs", "12", "--batch-size", "12", "--learning-rate", "3e-3", "--output"]);
        command.arg(case.path("encoder"));
        command
    };
    run(&[]).assert().success().stdout(contains("recall_at_5"));
    // By chance it is (1 + 1/2 + .. + 1/12) / 12 = 0.26.
    let rank = outcome(&case.path("encoder"))["valid"]["mrr"].as_f64().expect("a figure");
    assert!(rank > 0.6, "{rank}");

    let mut embed = example("embed");
    embed.arg("--model").arg(case.path("encoder")).args(["a war", "--json"]);
    embed.assert().success().stderr(contains("pooling: mean (1_Pooling/config.json)"));
    fs::rename(case.path("encoder"), case.path("whole")).expect("another name");
    run(&["--lora", "4"]).assert().success().stdout(contains("the model of"));
    assert!(!case.path("encoder/adapter_config.json").exists());
    let rank = outcome(&case.path("encoder"))["valid"]["mrr"].as_f64().expect("a figure");
    assert!(rank > 0.4, "{rank}");
}

/// Also the folder of a run that was stopped says how states are pooled.
#[test]
fn a_written_encoder_names_its_pooling() {
    let config: ModelConfig = config(&[]).into();
    let encoder = TextEncoder::new(&config, Pooling::Cls, 6, &Device::flex());
    let written = tempfile::tempdir().expect("a folder");
    Objective::write(&encoder, &config, written.path()).expect("a checkpoint");
    let options =
        EmbedOptions::from_folder(written.path()).expect("modules").expect("a folder of sentence-transformers");
    assert_eq!((options.pooling, options.dense), (vec![Pooling::Cls], vec![written.path().join("2_Dense")]));
}

#[test]
fn positives_can_have_an_encoder_of_their_own() {
    let case = Case::with_classifier();
    // Of another width and depth.
    let other = folder(DebertaConfig { hidden_size: 24, num_hidden_layers: 1, ..config(&[]) }, Backbone::new);
    let text = |index: usize| format!("a {}", [WORDS[index % 12]].repeat(1 + index / 12 % 3).join(" "));
    let positive = |index: usize| format!("{0} and {0}", WORDS[index % 12]);
    let row = |index| format!("{{\"text\": \"{}\", \"positive\": \"{}\"}}\n", text(index), positive(index));
    let train = case.file("train.jsonl", &(0..240).map(row).collect::<String>());
    let valid = case.file("valid.jsonl", &(0..12).map(row).collect::<String>());
    let run = |flags: &[&str], output: &str| {
        let mut command = example("finetune_embed");
        command.arg("--model").arg(case.model.path()).arg("--positive-model").arg(other.path()).args(flags);
        command.arg("--train").arg(&train).arg("--valid").arg(&valid).arg("--output").arg(case.path(output));
        command.args(["--batch-size", "12", "--learning-rate", "3e-3"]);
        command
    };
    run(&["--epochs", "12"], "encoders").assert().success();
    let rank = outcome(&case.path("encoders"))["valid"]["mrr"].as_f64().expect("a figure");
    // By chance it is 0.26, as above.
    assert!(rank > 0.5, "{rank}");

    // Each folder embeds its side, with the vectors that were judged.
    let vectors = |folder: &str, texts: Vec<String>| -> Vec<Vec<f32>> {
        let mut embed = example("embed");
        embed.arg("--model").arg(case.path(folder)).args(["--normalize", "--json", "--file"]);
        embed.arg(case.file("texts.txt", &texts.join("\n")));
        let answer = embed.assert().success().stderr(contains("(1_Pooling/config.json)"));
        let lines = String::from_utf8(answer.get_output().stdout.clone()).expect("UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("a list")).collect()
    };
    let texts = vectors("encoders", (0..12).map(text).collect());
    let positives = vectors("encoders/counterparts", (0..12).map(positive).collect());
    assert_eq!((texts[0].len(), positives[0].len()), (16, 16));
    let cosine = |text: &[f32], positive: &[f32]| text.iter().zip(positive).map(|(a, b)| a * b).sum::<f32>();
    let place = |index: usize| {
        let own = cosine(&texts[index], &positives[index]);
        1 + positives.iter().filter(|other| cosine(&texts[index], other) > own).count()
    };
    let found = (0..12).map(|index| 1.0 / place(index) as f64).sum::<f64>() / 12.0;
    assert!((found - rank).abs() < 1e-6, "{found} {rank}");

    // A low rank learns more slowly, and from some fresh weights less.
    run(&["--lora", "4", "--epochs", "30"], "adapted").assert().success();
    let rank = outcome(&case.path("adapted"))["valid"]["mrr"].as_f64().expect("a figure");
    assert!(rank > 0.4, "{rank}");
    let mut given = run(&["--vectors", "a.safetensors"], "bad");
    given.assert().code(2).stderr(contains("cannot be used with"));
}

#[test]
fn the_first_numbers_of_vectors_learn_to_be_vectors() {
    let case = Case::with_classifier();
    let row = |index: usize| {
        let (word, count) = (WORDS[index % 12], 1 + index / 12 % 3);
        format!(r#"{{"text": "a {}", "positive": "{word} and {word}"}}"#, [word].repeat(count).join(" ")) + "\n"
    };
    let train = case.file("train.jsonl", &(0..240).map(row).collect::<String>());
    let valid = case.file("valid.jsonl", &(0..12).map(row).collect::<String>());
    let run = |sizes: &str, output: &str| {
        let mut command = example("finetune_embed");
        command.arg("--model").arg(case.model.path()).arg("--train").arg(&train).arg("--valid").arg(&valid);
        command.args(["--epochs", "12", "--batch-size", "12", "--learning-rate", "3e-3", "--sizes", sizes, "--output"]);
        command.arg(case.path(output));
        command
    };
    run("16,4", "encoder").assert().success().stdout(contains("mrr_size_4"));
    let rank = outcome(&case.path("encoder"))["valid"]["mrr_size_4"].as_f64().expect("a figure");
    // By chance it is 0.26, as above.
    assert!(rank > 0.5, "{rank}");
    let mut embed = example("embed");
    embed.arg("--model").arg(case.path("encoder")).args(["a war", "--size", "4", "--normalize", "--json"]);
    let answer = embed.assert().success().stderr(contains("pooling: mean, cut to 4 numbers, scaled to length 1"));
    let vector: Vec<f32> = serde_json::from_slice(&answer.get_output().stdout).expect("a list");
    assert_eq!(vector.len(), 4);
    let mut embed = example("embed");
    embed.arg("--model").arg(case.path("encoder")).args(["a war", "--size", "17"]);
    assert!(error_of(embed).contains("size: it is 17, expected from 1 to 16, the numbers of a vector"));
    assert!(error_of(run("17", "bad")).contains("--sizes: it is 17, expected from 1 to 16, the numbers of a vector"));
}

/// Writes a safetensors file of vectors.
fn vectors(case: &Case, name: &str, vectors: &[Vec<f32>]) -> PathBuf {
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let shape = vec![vectors.len(), vectors[0].len()];
    let view = TensorView::new(Dtype::F32, shape, &bytes).expect("a shape that fits");
    let path = case.path(name);
    safetensors::serialize_to_file([("embeddings", view)], None, &path).expect("a file");
    path
}

#[test]
fn encoders_learn_from_given_vectors_and_their_folder_embeds() {
    let case = Case::with_classifier();
    let mut random = Random::new(&[1]);
    let of_words: Vec<Vec<f32>> = WORDS.map(|_| (0..10).map(|_| random.uniform() as f32 - 0.5).collect()).into();
    // A text of two words; its vector is that of the first, and half of the second.
    let pair = |index: usize| (index % 12, (index + 1 + index / 12 % 11) % 12);
    let text = |index: usize| {
        let (first, second) = pair(index);
        format!("{{\"text\": \"{} and the {}\"}}\n", WORDS[first], WORDS[second])
    };
    let given = |index: usize| {
        let (first, second) = pair(index);
        of_words[first].iter().zip(&of_words[second]).map(|(first, second)| first + 0.5 * second).collect::<Vec<_>>()
    };
    // The texts of validation are among those of training: it is shown that they are learned.
    let (train, valid) = (0..264, 100..132);
    let texts = |name: &str, range: Range<usize>| case.file(name, &range.map(text).collect::<String>());
    let (train_texts, valid_texts) = (texts("train.jsonl", train.clone()), texts("valid.jsonl", valid.clone()));
    let train_vectors = vectors(&case, "train.safetensors", &train.map(given).collect::<Vec<_>>());
    let expected: Vec<Vec<f32>> = valid.map(given).collect();
    let valid_vectors = vectors(&case, "valid.safetensors", &expected);
    let run = |output: &str, flags: &[&str]| {
        let mut command = example("finetune_embed");
        command.arg("--model").arg(case.model.path()).arg("--train").arg(&train_texts).arg("--vectors");
        command.arg(&train_vectors).arg("--valid").arg(&valid_texts).args(flags).arg("--output").arg(case.path(output));
        command.args(["--batch-size", "12", "--learning-rate", "3e-3"]);
        command
    };
    let with_valid = ["--valid-vectors", valid_vectors.to_str().expect("an ASCII path")];
    let embedded = |output: &str| -> Vec<Vec<f32>> {
        let mut embed = example("embed");
        embed.arg("--model").arg(case.path(output)).arg("--json").arg("--file").arg(&valid_texts);
        let answer =
            embed.assert().success().stderr(contains("pooling: mean, mapped by 2_Dense (1_Pooling/config.json)"));
        let lines = String::from_utf8(answer.get_output().stdout.clone()).expect("UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("a list")).collect()
    };
    for (name, loss, more, least) in [
        ("contrastive", "contrastive", &["--epochs", "20"][..], 0.4),
        ("adapted", "contrastive", &["--epochs", "20", "--lora", "4", "--lora-targets", "all"], 0.3),
        ("mse", "mse", &["--epochs", "60"], 0.3),
    ] {
        let flags = [&with_valid[..], &["--loss", loss], more].concat();
        run(name, &flags).assert().success().stdout(contains("recall_at_5"));
        // By chance it is (1 + 1/2 + .. + 1/32) / 32 = 0.13.
        let rank = outcome(&case.path(name))["valid"]["mrr"].as_f64().expect("a figure");
        assert!(rank > least, "{name}: {rank}");
        // The folder has the vectors that were judged.
        let found = embedded(name);
        assert_eq!(found[0].len(), 10);
        let nearest = |vector: &Vec<f32>| {
            let cosine = |other: &Vec<f32>| {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                dot(vector, other) / dot(other, other).sqrt()
            };
            (0..expected.len()).max_by(|a, b| cosine(&expected[*a]).total_cmp(&cosine(&expected[*b])))
        };
        let recall = outcome(&case.path(name))["valid"]["recall_at_1"].as_f64().expect("a figure");
        let right = (0..found.len()).filter(|&index| nearest(&found[index]) == Some(index)).count();
        assert!((right as f64 / 32.0 - recall).abs() < 0.05, "{name}: {right} of 32, {recall}");
    }
    // Pairs of texts go on with the linear map.
    let pairs = r#"{"text": "war", "positive": "peace"}"#.to_owned() + "\n" + r#"{"text": "law", "positive": "king"}"#;
    let mut command = example("finetune_embed");
    command.arg("--model").arg(case.path("contrastive")).arg("--train").arg(case.file("pairs.jsonl", &pairs));
    command.args(["--steps", "1"]).arg("--output").arg(case.path("pairs")).assert().success();
    assert_eq!(embedded("pairs")[0].len(), 10);

    let short = vectors(&case, "short.safetensors", &expected[1..]);
    let narrow = vectors(&case, "narrow.safetensors", &vec![vec![1.0; 3]; 32]);
    for (flags, problem) in [
        (&[][..], "--valid-vectors: it is missing, expected the vectors of the texts in"),
        (&["--valid-vectors", short.to_str().expect("an ASCII path")], "short.safetensors: it holds 31 vectors, but"),
        (
            &["--valid-vectors", narrow.to_str().expect("an ASCII path")],
            "--valid-vectors: it has vectors of 3 numbers, expected 10",
        ),
        (
            &[&with_valid[..], &["--test-vectors", with_valid[1]]].concat()[..],
            "--test-vectors: there are no texts that they belong to",
        ),
    ] {
        let error = error_of(run("bad", flags));
        assert!(error.contains(problem), "{error}");
    }
    assert!(!case.path("bad").exists());
    let mut sizes = run("bad", &["--sizes", "4"]);
    sizes.assert().code(2).stderr(contains("cannot be used with"));
}
