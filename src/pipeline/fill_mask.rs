//! Words for the masks in a text, by the language model head of pretraining.

use std::path::Path;

use serde::Serialize;

use super::{Pipeline, PipelineOptions, Runner};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    config::ModelConfig,
    heads::{MaskedLm, MaskedLmLayout},
    model::{inference::Prepared, masked_positions::MaskedPositions},
    scores::{rows, softmax, sort_by_score},
    tokenizer::{Text, Truncation},
};

/// The spelling of a mask that works in every text, whatever the tokenizer's own spelling is.
const MASK: &str = "[MASK]";

/// A text whose masks are to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillRequest {
    /// The text, with at least one mask.
    pub text: String,
    /// How many words to find for each mask.
    pub top_k: usize,
}

/// A mask of a text, and the words that fit there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledMask {
    /// The position of the mask among the tokens; `[CLS]` is at 0.
    pub position: usize,
    /// The likeliest words first.
    pub words: Vec<WordScore>,
}

/// A word (or a piece of one) and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordScore {
    /// The token as text, without white space around it.
    pub word: String,
    /// The token as the vocabulary spells it, which shows whether it starts a word.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability among all tokens.
    pub score: f32,
}

/// Texts with masks in, words out.
pub struct FillMask {
    runner: Runner,
    model: Prepared<MaskedLm>,
    head: &'static str,
    /// The tokenizer's spelling of a mask, which replaces [`MASK`].
    mask: String,
}

impl FillMask {
    /// Opens a checkpoint folder. The weights decide about the head: the original `lm_predictions.*` after the enhanced
    /// mask decoder, or the `cls.predictions.*` of transformers. [`head`](Self::head) says which one it is.
    ///
    /// # Errors
    /// A missing or damaged file; weights with neither head, as those of the v3 discriminators; options that do not fit the
    /// model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let (runner, model): (Runner, Prepared<MaskedLm>) = Runner::open(folder.as_ref(), options)?;
        runner.check_length(model.max_length())?;
        let head = match (runner.config(), runner.checkpoint().masked_lm_layout()) {
            (ModelConfig::Roberta(_), _) => "lm_head, last layer",
            (_, Some(MaskedLmLayout::EnhancedMaskDecoder)) => "lm_predictions, enhanced mask decoder",
            (_, Some(MaskedLmLayout::LastLayer)) => "lm_predictions, last layer (there is no decoder)",
            (_, _) => "cls.predictions, last layer",
        };
        let mask = runner.tokenizer().token(runner.tokenizer().mask_id()).unwrap_or_else(|| MASK.to_owned());
        Ok(Self { runner, model, head, mask })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner.report()
    }

    /// Which head the checkpoint has, in a few words.
    pub fn head(&self) -> &'static str {
        self.head
    }

    /// Finds the `top_k` likeliest tokens for every mask of each text. A mask is spelled `[MASK]`, or as the tokenizer
    /// spells it.
    ///
    /// # Errors
    /// No text at all, a text without a mask, a text that is too long (the mask might be cut off), or scores that are
    /// not finite.
    pub fn fill(&self, texts: &[impl AsRef<str>], top_k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let request = |text: &str| FillRequest { text: text.to_owned(), top_k };
        self.run(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }

    fn masks<'a>(&self, encoding: &'a Encoding) -> impl Iterator<Item = usize> + 'a {
        let mask = self.runner.tokenizer().mask_id();
        (0..encoding.len()).filter(move |&index| encoding.ids[index] == mask)
    }

    fn best_words(&self, logits: &[f32], top_k: usize) -> Vec<WordScore> {
        let tokenizer = self.runner.tokenizer();
        let mut scores: Vec<(u32, f32)> = (0..).zip(softmax(logits)).collect();
        sort_by_score(&mut scores, |score| score.1);
        // The model may have more token embeddings than there are tokens.
        let tokens = scores.into_iter().filter_map(|(id, score)| Some((id, score, tokenizer.token(id)?)));
        let word = |(id, score, token): (u32, f32, String)| {
            let word = tokenizer.decode(&[id], false).unwrap_or_default().trim().to_owned();
            WordScore { word, token, id, score }
        };
        tokens.take(top_k).map(word).collect()
    }
}

impl Pipeline for FillMask {
    type Request = FillRequest;
    type Answer = Vec<FilledMask>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, request: &FillRequest) -> Result<Vec<Encoding>> {
        let text = Text::from(request.text.replace(MASK, &self.mask));
        let encodings = self.runner.encode(&[text], Truncation::Error, None)?;
        if self.masks(&encodings[0]).next().is_none() {
            let problem = format!("it holds no {}, which stands for the word to be guessed", self.mask);
            return Err(Error::text(0, problem));
        }
        Ok(encodings)
    }

    /// The rows have the logits of each mask, one after the other.
    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let input = self.runner.input(batch)?;
        let [_, length] = input.input_ids.dims();
        let masks = batch.iter().map(|encoding| self.masks(encoding).collect::<Vec<_>>());
        let mut logits = rows(self.model.predict_at(input, &MaskedPositions::new(length, masks)))?.into_iter();
        let of_text = |encoding: &&Encoding| logits.by_ref().take(self.masks(encoding).count()).flatten().collect();
        Ok(batch.iter().map(of_text).collect())
    }

    fn decode(&self, request: &FillRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<FilledMask>> {
        self.runner.check_finite(sequences, &rows)?;
        let (encoding, logits) = (&sequences[0], &rows[0]);
        let vocabulary = logits.len() / self.masks(encoding).count();
        let masks = self.masks(encoding).zip(logits.chunks(vocabulary));
        let filled = |(position, logits)| FilledMask { position, words: self.best_words(logits, request.top_k) };
        Ok(masks.map(filled).collect())
    }
}
