//! Words for the masks in a text, by the language model head of pretraining.

use std::path::Path;

use serde::Serialize;

use super::{PipelineOptions, runner::Runner};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::LoadReport,
    config::ModelConfig,
    heads::{DebertaForMaskedLm, MaskedLm, MaskedLmLayout, RobertaForMaskedLm},
    model::{inference::Prepared, input::ModelInput, masked_positions::MaskedPositions},
    scores::{rows, softmax, sort_by_score},
    tokenizer::{Text, Truncation},
};

/// How every text may spell its masks, whatever the tokenizer calls them.
const MASK: &str = "[MASK]";

/// A mask of a text and what may stand there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilledMask {
    /// Which token of the text the mask is, counted from `[CLS]` at 0.
    pub position: usize,
    /// The likeliest words first.
    pub words: Vec<WordScore>,
}

/// A word (or a piece of one) and its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WordScore {
    /// The token as text, without white space around it.
    pub word: String,
    /// The token as the vocabulary spells it; tells whether it starts a word.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability among all tokens.
    pub score: f32,
}

/// Texts with masks in, words out.
pub struct FillMask {
    runner: Runner,
    model: Box<dyn MaskedLm>,
    head: &'static str,
    /// The tokenizer's mask, which [`MASK`] is replaced by.
    mask: String,
}

impl FillMask {
    /// Opens a checkpoint folder. The head is what the weights hold: the original's `lm_predictions.*` behind the enhanced
    /// mask decoder, or transformers' `cls.predictions.*`; [`head`](Self::head) tells which.
    ///
    /// # Errors
    /// A missing or damaged file; weights with neither head, as those of the v3 discriminators; options that do not fit the
    /// model.
    pub fn open(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let mut runner = Runner::open(folder.as_ref(), options)?;
        let (model, head): (Box<dyn MaskedLm>, _) = match runner.config.clone() {
            ModelConfig::Deberta(config) => {
                let layout = runner.checkpoint.masked_lm_layout().ok_or_else(|| no_head(&runner))?;
                let model = runner.load(DebertaForMaskedLm::new(&config, layout, runner.device())?)?;
                runner.check_length(model.max_length())?;
                let head = match layout {
                    MaskedLmLayout::EnhancedMaskDecoder => "lm_predictions, enhanced mask decoder",
                    MaskedLmLayout::LastLayer => "lm_predictions, last layer (there is no decoder)",
                    MaskedLmLayout::Legacy => "cls.predictions, last layer",
                };
                (Box::new(Prepared::new(model)), head)
            }
            ModelConfig::Roberta(config) => {
                let model = runner.load(RobertaForMaskedLm::new(&config, runner.device()))?;
                (Box::new(Prepared::new(model)), "lm_head, last layer")
            }
        };
        let mask = runner.tokenizer.token(runner.tokenizer.mask_id()).unwrap_or_else(|| MASK.to_owned());
        Ok(Self { runner, model, head, mask })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        &self.runner.report
    }

    /// Which head the checkpoint has, in a few words.
    pub fn head(&self) -> &'static str {
        self.head
    }

    /// Finds the `top_k` likeliest tokens for every mask of each text. A mask is spelled `[MASK]`, or as the tokenizer has it.
    ///
    /// # Errors
    /// No text at all, one without a mask, one that is too long (cutting it might cut off the mask), or scores that are not
    /// finite.
    pub fn fill(&self, texts: &[impl AsRef<str>], top_k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let texts: Vec<Text<'_>> = texts.iter().map(|text| text.as_ref().replace(MASK, &self.mask).into()).collect();
        let encodings = self.runner.encode(&texts, Truncation::Error, None)?;
        if let Some(index) = encodings.iter().position(|encoding| self.masks(encoding).next().is_none()) {
            let problem = format!("it holds no {}, which stands for the word to be guessed", self.mask);
            return Err(Error::text(index, problem));
        }
        let forward = |input: ModelInput, batch: &[&Encoding]| {
            let [_, length] = input.input_ids.dims();
            let masks = batch.iter().map(|encoding| self.masks(encoding).collect::<Vec<_>>());
            let mut logits = rows(self.model.predict_at(input, &MaskedPositions::new(length, masks)))?.into_iter();
            let of_text = |encoding: &&Encoding| logits.by_ref().take(self.masks(encoding).count()).flatten().collect();
            Ok(batch.iter().map(of_text).collect())
        };
        let decode = |encoding: &Encoding, logits: Vec<f32>| {
            let vocabulary = logits.len() / self.masks(encoding).count();
            let masks = self.masks(encoding).zip(logits.chunks(vocabulary));
            masks.map(|(position, logits)| FilledMask { position, words: self.best_words(logits, top_k) }).collect()
        };
        self.runner.run(&encodings, forward, decode)
    }

    fn masks<'a>(&self, encoding: &'a Encoding) -> impl Iterator<Item = usize> + 'a {
        let mask = self.runner.tokenizer.mask_id();
        (0..encoding.len()).filter(move |&index| encoding.ids[index] == mask)
    }

    fn best_words(&self, logits: &[f32], top_k: usize) -> Vec<WordScore> {
        let tokenizer = &self.runner.tokenizer;
        let mut scores: Vec<(u32, f32)> = (0..).zip(softmax(logits)).collect();
        sort_by_score(&mut scores, |score| score.1);
        // There may be more embeddings than tokens.
        let tokens = scores.into_iter().filter_map(|(id, score)| Some((id, score, tokenizer.token(id)?)));
        let word = |(id, score, token): (u32, f32, String)| {
            let word = tokenizer.decode(&[id], false).unwrap_or_default().trim().to_owned();
            WordScore { word, token, id, score }
        };
        tokens.take(top_k).map(word).collect()
    }
}

/// Why weights without a language model head cannot be used.
fn no_head(runner: &Runner) -> Error {
    let what = match runner.checkpoint.tensors().any(|(key, ..)| key.contains("mask_predictions.")) {
        true => {
            "these are the weights of a discriminator (replaced token detection), which tells replaced words but cannot guess any"
        }
        false => "there is no language model head (`lm_predictions.*` or `cls.predictions.*`)",
    };
    Error::checkpoint(runner.checkpoint.folder(), format!("{what}; use a masked language model, such as deberta-base"))
}
