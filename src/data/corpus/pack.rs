//! From paragraphs to the sequences of a cache file.

use std::{
    io::{Seek, Write},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use tokenizers::utils::SysRegex;

use super::{
    CorpusOptions, Paragraphs,
    cache::{Digest, Writer},
};
use crate::{
    Error, Result,
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncation},
};

/// Bytes of text that are tokenised together: enough work for many threads, and little memory.
const CHUNK_BYTES: usize = 8 << 20;

/// Fills sequences with tokens and writes each one when it is full.
pub(super) struct Packer<'a, W> {
    writer: Writer<W>,
    path: &'a Path,
    tokenizer: &'a Tokenizer,
    options: &'a CorpusOptions,
    /// For each token of the vocabulary, whether it always starts a word.
    word_starts: Vec<bool>,
    /// The text tokens of the current sequence.
    tokens: Vec<(u32, bool)>,
    /// Whether a document ended before the next token.
    between_documents: bool,
}

impl<'a, W: Write + Seek> Packer<'a, W> {
    /// Starts at the beginning of an empty file; `path` is for error messages.
    pub(super) fn new(file: W, path: &'a Path, tokenizer: &'a Tokenizer, options: &'a CorpusOptions) -> Result<Self> {
        let writer = Writer::new(file).map_err(Error::io("write", path))?;
        let word_starts = word_starts(tokenizer)?;
        Ok(Self { writer, path, tokenizer, options, word_starts, tokens: Vec::new(), between_documents: false })
    }

    /// Tokenises the paragraphs in parallel and packs them.
    pub(super) fn pack(&mut self, mut paragraphs: Paragraphs, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        loop {
            let mut chunk = Vec::new();
            let mut bytes = 0;
            while bytes < CHUNK_BYTES
                && let Some(paragraph) = paragraphs.next().transpose()?
            {
                bytes += paragraph.text.len();
                chunk.push(paragraph);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            let tokenizer = self.tokenizer;
            let encoded: Vec<Vec<u32>> =
                chunk.par_iter().map(|paragraph| encode(tokenizer, &paragraph.text)).collect::<Result<_>>()?;
            for (paragraph, ids) in chunk.iter().zip(encoded) {
                self.add(&ids, paragraph.starts_document)?;
            }
            progress(paragraphs.bytes_read(), paragraphs.total_bytes());
        }
    }

    /// Adds a paragraph. It may have no tokens, because the tokenizer drops control characters.
    fn add(&mut self, ids: &[u32], starts_document: bool) -> Result<()> {
        self.between_documents |= starts_document;
        for (index, &id) in ids.iter().enumerate() {
            if std::mem::take(&mut self.between_documents) && !self.tokens.is_empty() {
                match self.options.mix_documents {
                    true => self.push(self.tokenizer.sep_id(), true)?,
                    false => self.flush()?,
                }
            }
            self.push(id, index == 0 || self.word_starts[id as usize])?;
        }
        Ok(())
    }

    fn push(&mut self, id: u32, word_start: bool) -> Result<()> {
        self.tokens.push((id, word_start || self.tokens.is_empty()));
        if self.tokens.len() + 2 == self.options.length { self.flush() } else { Ok(()) }
    }

    /// Writes the sequence, if there is one.
    fn flush(&mut self) -> Result<()> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let around = |id| [(id, true)].into_iter();
        let text = self.tokens.drain(..);
        let sequence = around(self.tokenizer.cls_id()).chain(text).chain(around(self.tokenizer.sep_id()));
        self.writer.push(sequence).map_err(Error::io("write", self.path))
    }

    /// Writes the last sequence and completes the file.
    pub(super) fn finish(mut self, files: &[PathBuf], digest: Digest) -> Result<()> {
        self.flush()?;
        if self.writer.sequences() == 0 {
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            return Err(Error::input(files.join(", "), "no text found, expected at least one line of it"));
        }
        self.writer.finish(digest).map_err(Error::io("write", self.path))
    }
}

/// The ids of a text, without special tokens around it.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let whole = EncodeOptions {
        max_length: usize::MAX,
        truncation: Truncation::Error,
        stride: None,
        add_special_tokens: false,
    };
    let encodings = tokenizer.encode(&[Text::from(text)], &whole)?;
    Ok(encodings.into_iter().flat_map(|encoding| encoding.ids).collect())
}

/// For each token of the vocabulary, whether it always starts a word: its text starts with a space, or is a single
/// punctuation mark or symbol, or the token is special.
///
/// Source: microsoft/DeBERTa, `part_of_whole_word` of `spm_tokenizer.py` and `gpt2_tokenizer.py`; here symbols beyond
/// ASCII, such as `€`, are marks too.
fn word_starts(tokenizer: &Tokenizer) -> Result<Vec<bool>> {
    // A part of a character decodes to U+FFFD.
    let mark = SysRegex::new(r"^[\p{P}\p{S}\p{Z}\p{C}&&[^\x{FFFD}]]$").expect("a valid pattern");
    let starts_word = |id| {
        let token = tokenizer.token(id).unwrap_or_default();
        // The space of SentencePiece, and that of GPT-2's byte alphabet.
        if token.starts_with(['\u{2581}', '\u{120}']) || tokenizer.is_special(id) {
            return Ok(true);
        }
        Ok(mark.find_iter(&tokenizer.decode(&[id], false)?).next().is_some())
    };
    (0..tokenizer.vocab_size() as u32).map(starts_word).collect()
}
