//! Against the package gliner, by the folders of `make_gliner_fixtures.py`.

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::Device;
use safetensors::SafeTensors;
use serde::Deserialize;

use super::*;
use crate::{
    Precision, device,
    heads::{gliner::scored, spans},
    repository::fixture,
    scores::values,
};

const CASES: [&str; 11] = [
    "span",
    "span_without_lstm",
    "span_two_lstm_layers",
    "span_bin",
    "span_token_behind_marker",
    "span_last",
    "span_mean",
    "span_max",
    "span_marker",
    "token",
    "token_without_lstm",
];

/// Both sides compute in f32, but sum in another order. The largest errors of a few hundred sums of 8 to 48 terms, one after
/// the other, stay below 2e-5 of the largest value.
const TOLERANCE: f32 = 2e-5;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<String>,
    labels: Vec<String>,
    threshold: f32,
    entities: BTreeMap<String, Vec<Vec<Found>>>,
    labels_of_each_text: Vec<Vec<String>>,
    entities_of_each_text: Vec<Vec<Found>>,
    long_text: String,
    long_text_cut: Vec<Found>,
}

/// An entity of the reference.
#[derive(Debug, Deserialize)]
struct Found {
    start: usize,
    end: usize,
    text: String,
    label: String,
    score: f32,
}

impl Reference {
    fn read(case: &str) -> Self {
        let text = fs::read_to_string(folder(case).join("reference.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn options(&self) -> GlinerOptions {
        GlinerOptions { threshold: self.threshold, ..GlinerOptions::default() }
    }
}

fn folder(case: &str) -> std::path::PathBuf {
    fixture(&format!("gliner/{case}"))
}

fn options() -> PipelineOptions {
    PipelineOptions::new(Device::flex())
}

fn open(case: &str) -> Gliner {
    open_with(case, options())
}

fn open_with(case: &str, options: PipelineOptions) -> Gliner {
    let tokenizer = if folder(case).join("tokenizer.json").exists() { case } else { "tokenizer" };
    Gliner::with_tokenizer(folder(case), folder(tokenizer), options).unwrap()
}

fn assert_equal(case: &str, ours: &[Entity], theirs: &[Found]) {
    let span = |entity: &Entity| (entity.start, entity.end, entity.text.clone(), entity.label.clone());
    let expected: Vec<_> =
        theirs.iter().map(|found| (found.start, found.end, found.text.clone(), found.label.clone())).collect();
    assert_eq!(ours.iter().map(span).collect::<Vec<_>>(), expected, "{case}");
    for (entity, found) in ours.iter().zip(theirs) {
        assert!((entity.score - found.score).abs() < TOLERANCE, "{case}: {entity}, {found:?}");
    }
}

/// The tensors of `reference.safetensors` as numbers.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(folder: &Path) -> Self {
        Self(fs::read(folder.join("reference.safetensors")).unwrap())
    }

    fn ints(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        self.get(name, |bytes| i64::from_le_bytes(bytes.try_into().unwrap()), 8)
    }

    fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        self.get(name, |bytes| f32::from_le_bytes(bytes.try_into().unwrap()), 4)
    }

    fn get<T>(&self, name: &str, value: impl Fn(&[u8]) -> T, size: usize) -> (Vec<usize>, Vec<T>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        (view.shape().to_vec(), view.data().chunks_exact(size).map(value).collect())
    }
}

/// Compares the parts of rows that count: the first ones of each text.
fn assert_close(what: &str, counts: &[usize], ours: &[f32], (shape, theirs): (Vec<usize>, Vec<f32>)) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let (row, item) = (shape[1..].iter().product(), shape[2..].iter().product::<usize>());
    let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for ((ours, theirs), count) in ours.chunks(row).zip(theirs.chunks(row)).zip(counts) {
        for (ours, theirs) in ours.iter().zip(theirs).take(count * item) {
            assert!((ours - theirs).abs() <= TOLERANCE * largest, "{what}: {ours} is not {theirs}, of {largest}");
        }
    }
}

#[test]
fn every_step_gives_the_numbers_of_the_reference() {
    let devices = ["flex", "ndarray"].map(|name| device::device(name).unwrap());
    for (case, device) in CASES.iter().flat_map(|case| devices.iter().map(move |device| (*case, device))) {
        let gliner = open_with(case, PipelineOptions::new(device.clone()));
        let (reference, tensors) = (Reference::read(case), Tensors::read(&folder(case)));
        let request = |text: &String| GlinerRequest {
            text: text.clone(),
            labels: reference.labels.clone(),
            options: GlinerOptions::default(),
        };
        // The reference leaves blank texts out.
        let texts = reference.texts.iter().filter(|text| !text.trim().is_empty());
        let encodings: Vec<Encoding> = texts.flat_map(|text| gliner.encode(&request(text)).unwrap()).collect();
        let (shape, ids) = tensors.ints("input_ids");
        let (_, mask) = tensors.ints("attention_mask");
        for (index, encoding) in encodings.iter().enumerate() {
            let row = index * shape[1]..(index + 1) * shape[1];
            let expected: Vec<i64> =
                ids[row.clone()].iter().zip(&mask[row]).filter(|(_, mask)| **mask == 1).map(|(id, _)| *id).collect();
            assert_eq!(encoding.ids.iter().map(|&id| i64::from(id)).collect::<Vec<_>>(), expected, "{case}, {index}");
        }

        let batch: Vec<&Encoding> = encodings.iter().collect();
        let positions: Vec<_> = batch.iter().map(|sequence| gliner.positions(sequence)).collect();
        let words: Vec<usize> = positions.iter().map(|sequence| sequence.words.len()).collect();
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.len()).collect();
        let labels = vec![reference.labels.len(); batch.len()];
        let (input, layout) = gliner.input(&batch, &positions).unwrap().unwrap();
        gliner.model.run(input, |model, input| {
            let states = model.states(input);
            assert_close(case, &lengths, &values(states.clone()).unwrap(), tensors.floats("states"));
            let vectors = model.vectors(states, &layout);
            assert_close(case, &labels, &values(vectors.labels.clone()).unwrap(), tensors.floats("labels"));
            assert_close(case, &words, &values(vectors.words.clone()).unwrap(), tensors.floats("words"));
        });

        let (shape, theirs) = tensors.floats("logits");
        let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let (max_width, size) = scored(&gliner.config);
        let last: usize = size * reference.labels.len();
        for ((row, ours), count) in gliner.forward(&batch).unwrap().iter().enumerate().zip(&words) {
            for ((start, end), ours) in spans(*count, max_width).zip(ours.chunks(last)) {
                let width = if max_width == 1 { 0 } else { end - start };
                let widths = if max_width == 1 { 1 } else { shape[2] };
                let at = ((row * shape[1] + start) * widths + width) * last;
                for (ours, theirs) in ours.iter().zip(&theirs[at..at + last]) {
                    assert!((ours - theirs).abs() <= TOLERANCE * largest, "{case}: {ours} is not {theirs}");
                }
            }
        }
    }
}

#[test]
fn entities_are_those_of_the_reference() {
    for case in CASES {
        let (gliner, reference) = (open(case), Reference::read(case));
        for (nested, multi_label) in [(false, false), (false, true), (true, false), (true, true)] {
            let options = GlinerOptions { nested, multi_label, ..reference.options() };
            let capitalised = |flag| if flag { "True" } else { "False" };
            let mode = format!("nested={},multi_label={}", capitalised(nested), capitalised(multi_label));
            let found = gliner.find(&reference.texts, &reference.labels, options).unwrap();
            for (ours, theirs) in found.iter().zip(&reference.entities[&mode]) {
                assert_equal(&format!("{case}, {mode}"), ours, theirs);
            }
            // A text alone has the same entities.
            for (text, together) in reference.texts.iter().zip(&found) {
                let alone = &gliner.find(&[text], &reference.labels, options).unwrap()[0];
                let spans =
                    |found: &[Entity]| found.iter().map(|entity| (entity.start, entity.end)).collect::<Vec<_>>();
                assert_eq!(spans(alone), spans(together), "{case}, {mode}");
            }
        }
    }
}

#[test]
fn every_text_may_have_labels_of_its_own() {
    for case in ["span", "token"] {
        let (gliner, reference) = (open(case), Reference::read(case));
        let requests: Vec<_> = reference
            .texts
            .iter()
            .zip(&reference.labels_of_each_text)
            .map(|(text, labels)| GlinerRequest {
                text: text.clone(),
                labels: labels.clone(),
                options: reference.options(),
            })
            .collect();
        for (ours, theirs) in gliner.run(&requests).unwrap().iter().zip(&reference.entities_of_each_text) {
            assert_equal(case, ours, theirs);
        }
    }
}

#[test]
fn long_texts_lose_nothing() {
    for case in ["span", "token"] {
        let (gliner, reference) = (open(case), Reference::read(case));
        let request = GlinerRequest {
            text: reference.long_text.clone(),
            labels: reference.labels.clone(),
            options: reference.options(),
        };
        let windows = gliner.encode(&request).unwrap();
        let positions: Vec<_> = windows.iter().map(|window| gliner.positions(window)).collect();
        let count = words(&request.text).len();
        assert!(windows.len() > 2 && positions.iter().all(|window| window.words.len() <= gliner.config.max_len));
        assert_eq!(positions.last().unwrap().words.last().unwrap().0, count - 1);

        // The first window has what the reference finds in the text that it cuts to this length.
        let rows = gliner.forward(&windows.iter().collect::<Vec<_>>()).unwrap();
        let first = gliner.decode(&request, &windows[..1], rows[..1].to_vec()).unwrap();
        assert_equal(case, &first, &reference.long_text_cut);

        // The whole text has spans of all its parts, and none twice.
        let options = GlinerOptions { threshold: 0.0, multi_label: true, nested: true };
        let all = gliner.decode(&GlinerRequest { options, ..request.clone() }, &windows, rows).unwrap();
        let mut spans: Vec<_> = all.iter().map(|entity| (entity.start, entity.end, &entity.label)).collect();
        assert_eq!(spans.last().unwrap().0, words(&request.text)[count - 1].start);
        spans.sort();
        assert!(spans.is_sorted_by(|a, b| a < b), "{case}: a span is there twice");
    }
}

#[test]
fn nothing_is_found_in_nothing() {
    let gliner = open("span");
    let found = gliner.find(&["", " \u{1c} "], &["person"], GlinerOptions { threshold: 0.0, ..Default::default() });
    assert_eq!(found.unwrap(), [vec![], vec![]]);
}

#[test]
fn a_thousand_labels_and_a_very_long_word_are_no_trouble() {
    let gliner = open("token");
    let labels: Vec<String> = (0..1000).map(|index| format!("type {index}")).collect();
    let options = GlinerOptions { threshold: 0.0, multi_label: true, nested: false };
    let found = gliner.find(&["Ada"], &labels, options).unwrap();
    assert_eq!(found[0].len(), labels.len());
    let word = "a".repeat(10_000);
    let found = gliner.find(&[format!("in {word} on")], &["type"], options).unwrap();
    assert!(found[0].iter().any(|entity| entity.start <= 3 && entity.end >= 10_003));
}

#[test]
fn lower_precisions_find_nearly_the_same() {
    let reference = Reference::read("span");
    let options = GlinerOptions { threshold: 0.0, multi_label: true, nested: true };
    let found = |precision| {
        let gliner = open_with("span", PipelineOptions { precision, ..self::options() });
        let found = gliner.find(&reference.texts[..1], &reference.labels, options).unwrap();
        found[0].iter().map(|entity| (entity.start, entity.end, entity.label.clone(), entity.score)).collect::<Vec<_>>()
    };
    let exact = found(Precision::F32);
    let near = found(Precision::I16);
    assert!(2 * near.len() > exact.len());
    for (start, end, label, score) in exact {
        let other = near.iter().find(|other| (other.0, other.1, &other.2) == (start, end, &label));
        // Which of two overlapping spans counts may differ where they are nearly as probable. i16 rounds to 2^-15 of the
        // largest number of each linear map.
        assert!(other.is_none_or(|other| (other.3 - score).abs() < 1e-2), "{label}: {score} is not {other:?}");
    }
}

#[test]
fn impossible_requests_name_what_is_wrong() {
    let gliner = open("span");
    let find = |labels: &[&str], threshold| {
        gliner.find(&["Ada"], labels, GlinerOptions { threshold, ..Default::default() }).unwrap_err().to_string()
    };
    assert_eq!(find(&[], 0.5), "labels: there are none, expected at least one");
    assert_eq!(find(&["person", " "], 0.5), "labels: label 2 is blank, expected a name");
    assert!(find(&["person"], 1.5).contains("threshold: it is 1.5, expected a probability"));
    let short = PipelineOptions { max_length: Some(8), ..options() };
    let gliner = Gliner::from_folder(folder("span"), short).unwrap();
    let error = gliner.find(&["Ada"], &["person"], GlinerOptions::default()).unwrap_err().to_string();
    assert!(error.contains("leave no room for the text"), "{error}");
}

#[test]
fn folders_say_what_they_lack() {
    let message = |result: Result<Gliner>| result.err().expect("an error").to_string();
    let alone = message(Gliner::from_folder(folder("span_bin"), options()));
    assert!(alone.contains("no tokenizer found") && alone.contains("give that of tokenizer"), "{alone}");
    let other = message(Gliner::with_tokenizer(folder("span_bin"), fixture("small_tokenizer"), options()));
    assert!(other.contains("`<<ENT>>` has the id 1537, but class_token_index"), "{other}");
    let tagger = crate::pipeline::TokenTagger::from_folder(folder("span"), options()).err().unwrap().to_string();
    assert!(tagger.contains("open it with the pipeline Gliner (example gliner)"), "{tagger}");
}

#[test]
fn damaged_folders_are_refused_by_what_is_wrong() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["gliner_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(folder("span").join(file), copy.path().join(file)).unwrap();
    }
    let path = copy.path().join("gliner_config.json");
    let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let message = || Gliner::from_folder(&copy, options()).err().expect("an error").to_string();
    // Weights of other shapes, of another scorer, and of more layers than there are.
    for (key, value, tensor) in [
        ("hidden_size", serde_json::json!(30), "`rnn.lstm.weight_ih_l0`"),
        ("span_mode", serde_json::json!("token_level"), "`scorer.proj_token.weight`"),
        ("num_rnn_layers", serde_json::json!(2), "`rnn.lstm.weight_ih_l1`"),
    ] {
        let mut other = config.clone();
        other[key] = value;
        fs::write(&path, other.to_string()).unwrap();
        let error = message();
        assert!(error.contains(tensor) && error.contains("checkpoint "), "{key}: {error}");
    }
    fs::write(&path, "{").unwrap();
    assert!(message().contains("gliner_config.json is not valid JSON"), "{}", message());
    fs::write(&path, config.to_string()).unwrap();
    let weights = fs::read(copy.path().join("model.safetensors")).unwrap();
    fs::write(copy.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(message().contains("model.safetensors: "), "{}", message());
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    assert!(message().contains("there are no weights in it"), "{}", message());
}

#[test]
fn weights_may_have_the_name_of_their_type() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["gliner_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder("span").join(file), copy.path().join(file)).unwrap();
    }
    fs::copy(folder("span").join("model.safetensors"), copy.path().join("model.bf16.safetensors")).unwrap();
    let reference = Reference::read("span");
    let found = Gliner::from_folder(&copy, options()).unwrap();
    let found = found.find(&reference.texts, &reference.labels, reference.options()).unwrap();
    assert_equal("span", &found[0], &reference.entities["nested=False,multi_label=False"][0]);
}
