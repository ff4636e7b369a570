//! The model that ships: small, whole, and with something to say.

mod common;

use std::{fs, path::PathBuf};

use common::{cpu_devices, repository::repository};
use deberta_burn::pipeline::{FillMask, PipelineOptions};

fn folder() -> PathBuf {
    repository("models/deberta-tiny")
}

/// Sentences of the kind that it was trained on, each with a word that is among its five likeliest.
#[test]
fn it_guesses_sensible_words() {
    let cases = [
        ("She opened the [MASK] and went out into the garden.", "door"),
        ("I am very [MASK] to see you, said she.", "glad"),
        ("The old [MASK] shook his head.", "man"),
        ("She was his [MASK] and mother of his children.", "wife"),
    ];
    for (backend, device) in cpu_devices() {
        let model = FillMask::from_folder(folder(), PipelineOptions::new(device)).expect("the model that ships");
        let filled = model.fill(&cases.map(|(text, _)| text), 5).expect("a mask in each");
        for ((text, word), masks) in cases.iter().zip(filled) {
            let words: Vec<_> = masks[0].words.iter().map(|word| word.word.as_str()).collect();
            assert!(words.contains(word), "{backend}: {text} {words:?}");
        }
    }
}

#[test]
fn it_is_small_enough_to_ship() {
    let bytes = fs::metadata(folder().join("model.safetensors")).expect("weights").len();
    assert!(bytes < 10_000_000, "{bytes} bytes");
}
