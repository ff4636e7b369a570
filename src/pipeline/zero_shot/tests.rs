//! GLiClass against the package gliclass, by the folders of `make_gliclass_fixtures.py`.

use std::fs;

use burn::tensor::Device;
use serde::Deserialize;

use super::*;
use crate::{
    config::ModelConfig,
    repository::fixture,
    scores::{sigmoid, softmax},
    tokenizer::TruncationSide,
};

const CASES: [&str; 4] = ["first", "average", "average_of_the_names", "token_behind_marker"];

/// As for GLiNER: f32 on both sides, in another order of sums.
const TOLERANCE: f32 = 2e-5;

#[derive(Deserialize)]
struct Reference {
    labels: Vec<String>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn open(case: &str, options: PipelineOptions) -> (ZeroShot, Reference) {
    let folder = fixture(&format!("gliclass/{case}"));
    let reference = serde_json::from_str(&fs::read_to_string(folder.join("reference.json")).unwrap());
    (ZeroShot::from_folder(folder, options).unwrap(), reference.unwrap())
}

fn options() -> PipelineOptions {
    PipelineOptions::new(Device::flex())
}

#[test]
fn ids_logits_and_scores_are_those_of_the_reference() {
    for case in CASES {
        let (model, reference) = open(case, options());
        let largest =
            reference.texts.iter().flat_map(|text| &text.logits).fold(0f32, |most, logit| most.max(logit.abs()));
        let request = |text: &Text| ZeroShotRequest {
            text: text.text.clone(),
            candidates: reference.labels.clone(),
            options: ZeroShotOptions::default(),
        };
        let encodings: Vec<Encoding> =
            reference.texts.iter().flat_map(|text| model.encode(&request(text)).unwrap()).collect();
        let rows = model.forward(&encodings.iter().collect::<Vec<_>>()).unwrap();
        for ((text, encoding), row) in reference.texts.iter().zip(&encodings).zip(rows) {
            assert_eq!(encoding.ids, text.ids, "{case}: {}", text.text);
            for (ours, theirs) in row.iter().zip(&text.logits) {
                assert!((ours - theirs).abs() <= TOLERANCE * largest, "{case}: {ours} is not {theirs}, of {largest}");
            }
        }
        for multi_label in [false, true] {
            let options = ZeroShotOptions { multi_label, ..ZeroShotOptions::default() };
            let texts: Vec<&str> = reference.texts.iter().map(|text| text.text.as_str()).collect();
            for (scores, text) in
                model.classify(&texts, &reference.labels, &options).unwrap().iter().zip(&reference.texts)
            {
                let expected: Vec<f32> = match multi_label {
                    true => text.logits.iter().copied().map(sigmoid).collect(),
                    false => softmax(&text.logits),
                };
                assert!(scores.is_sorted_by(|a, b| a.score >= b.score));
                for (label, expected) in reference.labels.iter().zip(expected) {
                    let found = scores.iter().find(|score| score.label == *label).unwrap().score;
                    assert!((found - expected).abs() <= TOLERANCE * largest, "{case}: {found} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn texts_are_cut_and_labels_are_not() {
    let (model, reference) = open("average", PipelineOptions { max_length: Some(60), ..options() });
    let text = "Ada ".repeat(50);
    assert_eq!(model.classify(&[&text], &reference.labels, &ZeroShotOptions::default()).unwrap()[0].len(), 3);
    let many = vec!["person"; 20];
    let error = model.classify(&[&text], &many, &ZeroShotOptions::default()).unwrap_err().to_string();
    assert!(error.contains("20 labels do not fit into 60 tokens"), "{error}");
}

#[test]
fn a_thousand_labels_and_a_very_long_word_are_no_trouble() {
    let labels: Vec<String> = (0..1000).map(|index| format!("kind {index}")).collect();
    let word = "a".repeat(10_000);
    let (model, _) = open("first", PipelineOptions { max_length: Some(20_000), ..options() });
    let scores = model.classify(&["Ada", &word], &labels, &ZeroShotOptions::default()).unwrap();
    for scores in scores {
        assert_eq!(scores.len(), labels.len());
        // A thousand roundings of f32.
        assert!((scores.iter().map(|score| score.score).sum::<f32>() - 1.0).abs() < 1e-4);
    }
    // A model of the usual length says that so many do not fit, and cuts the word.
    let (model, reference) = open("first", options());
    let error = model.classify(&["Ada"], &labels, &ZeroShotOptions::default()).unwrap_err().to_string();
    assert!(error.contains("1000 labels do not fit into"), "{error}");
    assert_eq!(model.classify(&[&word], &reference.labels, &ZeroShotOptions::default()).unwrap()[0].len(), 3);
}

#[test]
fn damaged_folders_are_refused_by_what_is_wrong() {
    let copy = tempfile::tempdir().unwrap();
    let from = fixture("gliclass/first");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(from.join(file), copy.path().join(file)).unwrap();
    }
    let message = || ZeroShot::from_folder(&copy, options()).err().expect("an error").to_string();
    let weights = fs::read(copy.path().join("model.safetensors")).unwrap();
    fs::write(copy.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(message().contains("model.safetensors: "), "{}", message());
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    assert!(message().contains("there are no weights in it"), "{}", message());
    fs::write(copy.path().join("config.json"), "[]").unwrap();
    assert!(message().contains("config.json"), "{}", message());
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let refused = |options| ZeroShot::from_folder(fixture("gliclass/first"), options).err().unwrap().to_string();
    let left = PipelineOptions { truncation_side: Some(TruncationSide::Left), ..options() };
    assert!(refused(left).contains("only the end can be cut"));
    let adapter = PipelineOptions { adapter: Some("x".into()), ..options() };
    assert!(refused(adapter).contains("adapters of GLiClass models are not supported"));
}

#[test]
fn what_a_model_does_not_read_is_refused() {
    let (model, _) = open("first", options());
    let ask = |label: &str, template: &str| {
        let options = ZeroShotOptions { template: template.to_owned(), multi_label: false };
        model.classify(&["Ada"], &[label], &options).unwrap_err().to_string()
    };
    assert!(ask("person", "It is {}.").contains("without a template"));
    let default = ZeroShotOptions::default().template;
    assert!(ask("a<<SEP>>", &default).contains("`a<<SEP>>` holds <<LABEL>> or <<SEP>>"));
    assert!(ask(" ", &default).contains("there are none"));
    let error = ModelConfig::from_folder(fixture("gliclass/first")).unwrap_err().to_string();
    assert!(error.contains("a GLiClass model is opened with the pipeline ZeroShot"), "{error}");
}
