//! Entities of any type, by a GLiNER checkpoint: the types are part of the question.

#[cfg(test)]
mod tests;

use std::path::Path;

use burn::tensor::Device;

use super::{
    Entity, Pipeline, PipelineOptions, Runner,
    runner::{Parts, characters},
};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::{Checkpoint, LoadReport},
    config::{Configuration, GlinerConfig},
    heads::{
        self, GlinerLayout, GlinerOptions,
        gliner::{Candidate, find, own_logits},
    },
    model::{ModelInput, inference::Prepared},
    prompt::{self, Limits, Markers, Positions, Word, words},
};

/// A text, and what is looked for in it.
#[derive(Clone, Debug, PartialEq)]
pub struct GlinerRequest {
    /// The text, of any length.
    pub text: String,
    /// The types of entities, in words: "person", "date of birth". Types that are named twice count once.
    pub labels: Vec<String>,
    /// Which spans become entities.
    pub options: GlinerOptions,
}

/// Texts and types in, entities out.
pub struct Gliner {
    runner: Runner,
    model: Prepared<heads::Gliner>,
    config: GlinerConfig,
    markers: Markers,
}

impl Gliner {
    /// Opens a folder with `gliner_config.json`, weights and a tokenizer.
    ///
    /// # Errors
    /// A missing or damaged file, a model that is not supported, a tokenizer of another model, or options that do not fit
    /// the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        Self::with_tokenizer(&folder, &folder, options)
    }

    /// The same for a folder without a tokenizer, as many are published: it takes that of the checkpoint that training
    /// began with (`model_name` in `gliner_config.json`), and adds the markers.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn with_tokenizer(
        folder: impl AsRef<Path>,
        tokenizer: impl AsRef<Path>,
        options: PipelineOptions,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let mut config = GlinerConfig::from_folder(folder)?;
        let tokenizer = prompt::open_tokenizer(&config, folder, tokenizer.as_ref())?;
        let markers = Markers::of(&config, &tokenizer, folder)?;
        let checkpoint = Checkpoint::open(folder)?;
        config.complete(checkpoint.vocabulary());
        let limit = config.encoder().max_length().unwrap_or(usize::MAX);
        let max_length =
            options.max_length.unwrap_or(tokenizer.model_max_length().map_or(limit, |length| length.min(limit)));
        let parts = Parts { config: config.encoder(), tokenizer, checkpoint, max_length };
        let new = |device: &Device| heads::Gliner::new(&config, device);
        let (runner, model) = Runner::around_encoder("GLiNER", parts, options, new)?;
        Ok(Self { runner, model, config, markers })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner.report()
    }

    /// The model's configuration.
    pub fn config(&self) -> &GlinerConfig {
        &self.config
    }

    /// Finds the entities of each text, in the order of the text. Words are letters and digits, also joined by hyphens and
    /// underscores, and each other character that is no white space; an entity has whole words.
    ///
    /// A text with more words than the model reads at once (`max_len`), or more tokens than
    /// [`max_length`](PipelineOptions::max_length) allows, is read in overlapping windows. For a span in several windows,
    /// the one with most context around it counts.
    ///
    /// # Errors
    /// No text at all, no label or a blank one, labels that leave no room for the text, a threshold that is no probability,
    /// or scores that are not finite.
    pub fn find(
        &self,
        texts: &[impl AsRef<str>],
        labels: &[impl AsRef<str>],
        options: GlinerOptions,
    ) -> Result<Vec<Vec<Entity>>> {
        let labels: Vec<String> = labels.iter().map(|label| label.as_ref().to_owned()).collect();
        let request = |text: &str| GlinerRequest { text: text.to_owned(), labels: labels.clone(), options };
        self.run(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }

    /// A batch as the model wants it; none if there is no word in it.
    fn input(&self, batch: &[&Encoding], positions: &[Positions]) -> Result<Option<(ModelInput, GlinerLayout)>> {
        if positions.iter().all(|sequence| sequence.words.is_empty()) {
            return Ok(None);
        }
        let input = self.runner.input(batch)?;
        let ([_, length], device): (_, Device) = (input.input_ids.dims(), input.input_ids.device());
        let layout = GlinerLayout::new(positions, length, &self.config, &device);
        Ok(Some((input, layout)))
    }

    fn positions(&self, sequence: &Encoding) -> Positions {
        Positions::of(sequence, self.markers)
    }
}

impl Pipeline for Gliner {
    type Request = GlinerRequest;
    type Answer = Vec<Entity>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, GlinerRequest { text, labels, options }: &GlinerRequest) -> Result<Vec<Encoding>> {
        if !(0.0..=1.0).contains(&options.threshold) {
            return Err(Error::value("threshold", options.threshold, "a probability from 0 to 1"));
        }
        if labels.is_empty() {
            return Err(Error::setting("labels", "there are none, expected at least one"));
        }
        if let Some(index) = labels.iter().position(|label| label.trim().is_empty()) {
            return Err(Error::setting("labels", format!("label {} is blank, expected a name", index + 1)));
        }
        let limits = Limits { words: self.config.max_len, tokens: self.runner.max_length() };
        prompt::encode(self.runner.tokenizer(), self.markers, &distinct(labels), &words(text), limits)
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let positions: Vec<_> = batch.iter().map(|sequence| self.positions(sequence)).collect();
        let Some((input, layout)) = self.input(batch, &positions)? else { return Ok(vec![Vec::new(); batch.len()]) };
        let logits = self.model.run(input, |model, input| model.forward(input, &layout));
        own_logits(logits, &positions, &self.config)
    }

    fn decode(&self, request: &GlinerRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<Entity>> {
        self.runner.check_finite(sequences, &rows)?;
        let (labels, words) = (distinct(&request.labels), words(&request.text));
        let windows: Vec<_> = sequences.iter().map(|sequence| self.positions(sequence)).collect();
        let found = find(&windows, &rows, &self.config, request.options);
        Ok(found.iter().map(|candidate| entity(candidate, &request.text, &words, &labels)).collect())
    }
}

/// The labels without white space around them and without repetitions, in their order.
fn distinct(labels: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::with_capacity(labels.len());
    for label in labels.iter().map(|label| label.trim()) {
        if !distinct.contains(&label) {
            distinct.push(label);
        }
    }
    distinct
}

fn entity(candidate: &Candidate, text: &str, words: &[Word<'_>], labels: &[&str]) -> Entity {
    let (start, end) = (words[candidate.start].start, words[candidate.end].end);
    let label = labels[candidate.label].to_owned();
    Entity { label, text: characters(text, start, end), start, end, score: candidate.score }
}
