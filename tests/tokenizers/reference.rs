//! Ids against those of the `sentencepiece` package and of transformers.

use std::{fs, path::PathBuf};

use deberta_burn::tokenizer::{Text, Tokenizer};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{fixture, ids_of, load, read};

#[derive(Deserialize)]
pub struct Lines {
    pub lines: Vec<String>,
    ids: Vec<Vec<u32>>,
}

impl Lines {
    /// Lines whose ids differ from sentencepiece's, with both.
    fn differences<'a>(&'a self, tokenizer: &Tokenizer) -> Vec<(&'a str, Vec<u32>, &'a [u32])> {
        let texts: Vec<Text> = self.lines.iter().map(Text::from).collect();
        let found = ids_of(tokenizer, &texts, false);
        let compared = self.lines.iter().zip(found).zip(&self.ids);
        compared
            .filter(|((_, found), ids)| found != *ids)
            .map(|((line, found), ids)| (line.as_str(), found, ids.as_slice()))
            .collect()
    }
}

#[test]
fn spm_model_gives_the_ids_of_sentencepiece() {
    let expected: Lines = read(&fixture("spm/expected.json"));
    assert!(expected.lines.len() > 400);
    assert_eq!(expected.differences(&load("spm")), []);
}

#[test]
fn published_spm_model_gives_the_ids_of_sentencepiece() {
    let Some(folder) = std::env::var_os("DEBERTA_REAL_CHECKPOINT").map(PathBuf::from) else {
        println!("skipped: DEBERTA_REAL_CHECKPOINT names no folder with spm.model and spm_expected.json");
        return;
    };
    let expected: Lines = read(&folder.join("spm_expected.json"));
    // By itself, so that a tokenizer.json beside it does not rule.
    let alone = TempDir::new().unwrap();
    fs::copy(folder.join("spm.model"), alone.path().join("spm.model")).unwrap();
    let differences = expected.differences(&Tokenizer::from_folder(alone.path()).unwrap());
    // Repetitions split into the same pieces in another order with the same probability: rounding decides.
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    let (ties, others): (Vec<_>, Vec<_>) =
        differences.iter().partition(|(_, ours, theirs)| sorted(ours) == sorted(theirs));
    println!("{} lines, {} ties, {} other differences", expected.lines.len(), ties.len(), others.len());
    assert!(expected.lines.len() > 10_000);
    assert!(others.is_empty(), "{:?}", others.first());
    assert!(ties.len() * 1000 < expected.lines.len(), "{:?}", ties.first());
}

#[derive(Deserialize)]
struct Texts {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    pairs: Vec<(String, String)>,
    pair_ids: Vec<Vec<u32>>,
}

#[test]
fn vocab_and_merges_give_the_ids_of_transformers() {
    for folder in ["deberta", "roberta"] {
        let tokenizer = load(folder);
        let expected: Texts = read(&fixture(folder).join("expected.json"));
        let texts: Vec<Text> = expected.texts.iter().map(Text::from).collect();
        for (text, (found, ids)) in
            expected.texts.iter().zip(ids_of(&tokenizer, &texts, true).iter().zip(&expected.ids))
        {
            assert_eq!(found, ids, "{folder}: {text:?}");
        }
        let pairs: Vec<Text> = expected.pairs.iter().map(|(a, b)| Text::from((a, b))).collect();
        for (pair, (found, ids)) in
            expected.pairs.iter().zip(ids_of(&tokenizer, &pairs, true).iter().zip(&expected.pair_ids))
        {
            assert_eq!(found, ids, "{folder}: {pair:?}");
        }
    }
}
