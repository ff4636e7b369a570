//! The texts of an experiment: their vocabulary, their tokens, and what guessing by frequency is worth.

use std::{
    path::{Path, PathBuf},
    slice,
};

use deberta_burn::{
    Result,
    data::{
        corpus::{Corpus, CorpusOptions, Paragraphs},
        file_digest,
    },
    tokenizer::{
        Tokenizer,
        train::{VocabularyOptions, VocabularyTrainer},
    },
};

use crate::{
    protocol::{Data, Settings},
    report::TextFigures,
};

/// Trains the vocabulary and tokenises the texts, unless the output folder has them.
///
/// # Errors
/// Texts that cannot be read, a vocabulary that they are too small for, or files that cannot be written.
pub fn prepare(
    train: PathBuf,
    valid: PathBuf,
    downstream: &Path,
    settings: &Settings,
    output: &Path,
) -> Result<(Data, TextFigures)> {
    let tables = ["train.tsv", "valid.tsv", "test.tsv"].map(|name| downstream.join(name));
    let files = [train.clone(), valid.clone()].into_iter().chain(tables);
    let digests: Vec<String> = files.map(file_digest).collect::<Result<_>>()?;
    let folder = output.join(format!("tokenizer-{}-{}", settings.vocabulary, &digests[0][..8]));
    if !folder.is_dir() {
        eprintln!("training a vocabulary of {} tokens on {}", settings.vocabulary, train.display());
        let mut trainer = VocabularyTrainer::default();
        let mut paragraphs = Paragraphs::open(slice::from_ref(&train))?;
        while let Some(paragraph) = paragraphs.next().transpose()? {
            trainer.add(&paragraph.text);
        }
        // Some characters are so rare that they would only take the places of useful pieces.
        let options = VocabularyOptions { size: settings.vocabulary, character_coverage: 0.9999 };
        trainer.train(&options)?.save(&folder)?;
    }
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let cache = output.join("cache");
    let options = CorpusOptions { length: settings.length, mix_documents: false };
    let open = |path: &PathBuf| Corpus::open_or_build(slice::from_ref(path), &tokenizer, &options, &cache, |_, _| {});
    let (train_corpus, valid_corpus) = (open(&train)?, open(&valid)?);
    let figures = TextFigures {
        tokens: train_corpus.tokens(),
        frequency_loss: frequency_loss(&train_corpus, &valid_corpus, &tokenizer, settings.evaluated),
    };
    Ok((Data { train, valid, downstream: downstream.to_owned(), tokenizer: folder, cache, digests }, figures))
}

/// The loss of guessing the tokens of the first `evaluated` validation sequences by how frequent they are in the training
/// text, without looking at their context.
fn frequency_loss(train: &Corpus, valid: &Corpus, tokenizer: &Tokenizer, evaluated: usize) -> f64 {
    // One more of each, so that no token of the vocabulary is impossible.
    let mut counts = vec![1.0; tokenizer.vocab_size()];
    let tokens = |corpus: &Corpus, sequence: usize| {
        let ids = corpus.sequence(sequence).ids;
        ids.into_iter().filter(|id| !tokenizer.is_special(*id)).map(|id| id as usize).collect::<Vec<_>>()
    };
    (0..train.len()).flat_map(|sequence| tokens(train, sequence)).for_each(|id| counts[id] += 1.0);
    let total: f64 = counts.iter().sum();
    let losses = (0..valid.len().min(evaluated)).flat_map(|sequence| tokens(valid, sequence));
    let losses: Vec<f64> = losses.map(|id| (total / counts[id]).ln()).collect();
    losses.iter().sum::<f64>() / losses.len() as f64
}
