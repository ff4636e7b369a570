//! Entities of any type, by a GLiNER checkpoint: the types are part of the question.

mod decode;
#[cfg(test)]
mod tests;

use std::path::Path;

use burn::{Tensor, tensor::Device};

use self::decode::{Candidate, Window, select};
use super::{Entity, Pipeline, PipelineOptions, Runner, runner::characters};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::{Checkpoint, LoadReport},
    config::{GlinerConfig, SpanMode},
    heads::{self, GlinerLayout, spans},
    model::{ModelInput, inference::Prepared},
    prompt::{self, Limits, Markers, Positions, Word, words},
    scores::rows,
    tokenizer::Tokenizer,
};

/// Which spans become entities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlinerOptions {
    /// An entity's probability is above this, from 0 to 1.
    pub threshold: f32,
    /// Whether an entity may lie inside another one. Otherwise the more probable one of two that overlap counts.
    pub nested: bool,
    /// Whether a span may have several types.
    pub multi_label: bool,
}

impl Default for GlinerOptions {
    /// Above one half, flat, one type each.
    fn default() -> Self {
        Self { threshold: 0.5, nested: false, multi_label: false }
    }
}

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
        options.expect_no_adapter("GLiNER")?;
        let mut config = GlinerConfig::from_folder(folder)?;
        let tokenizer = open_tokenizer(&config, folder, tokenizer.as_ref())?;
        let markers = markers(&config, folder, &tokenizer)?;
        let checkpoint = Checkpoint::open(folder)?;
        if config.vocab_size < 0
            && let Some(rows) = checkpoint.vocabulary()
        {
            config.encoder_config.vocab_size = rows;
        }
        let max_length = options.max_length.or(tokenizer.model_max_length()).unwrap_or(usize::MAX);
        let encoder = config.encoder_config.clone().into();
        let (runner, model) = Runner::with_model(
            encoder,
            tokenizer,
            checkpoint,
            max_length,
            options,
            |_, checkpoint, options, device| checkpoint.load(heads::Gliner::new(&config, device), options),
        )?;
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

    /// The most words of what is scored, and the scores of each for one label.
    fn scored(&self) -> (usize, usize) {
        match self.config.span_mode {
            SpanMode::TokenLevel => (1, 3),
            SpanMode::Marker | SpanMode::MarkerV0 => (self.config.max_width, 1),
        }
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
        let scores: Tensor<3> = self.model.run(input, |model, input| model.forward(input, &layout));
        let (max_width, size) = self.scored();
        let [_, _, width] = scores.dims();
        let words = positions.iter().map(|sequence| sequence.words.len()).max().unwrap_or(0);
        // What the longest text of the batch has, and what is left of it for each.
        let items: Vec<(usize, usize)> = spans(words, max_width).collect();
        let row = |(positions, scores): (&Positions, Vec<f32>)| {
            let own = items.iter().zip(scores.chunks(width)).filter(|((_, last), _)| *last < positions.words.len());
            own.flat_map(|(_, scores)| &scores[..size * positions.labels.len()]).copied().collect()
        };
        Ok(positions.iter().zip(rows(scores)?).map(row).collect())
    }

    fn decode(&self, request: &GlinerRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<Entity>> {
        self.runner.check_finite(sequences, &rows)?;
        let (labels, words) = (distinct(&request.labels), words(&request.text));
        let windows: Vec<Window> =
            sequences.iter().map(|sequence| Window::new(self.positions(sequence), labels.len())).collect();
        let threshold = request.options.threshold;
        let candidates = windows.iter().zip(&rows).enumerate().flat_map(|(index, (window, scores))| {
            let found = match self.config.span_mode {
                SpanMode::TokenLevel => window.runs(scores, threshold),
                SpanMode::Marker | SpanMode::MarkerV0 => window.spans(scores, self.config.max_width, threshold),
            };
            let windows = &windows;
            found.into_iter().filter(move |candidate| candidate.window(windows) == index)
        });
        let selected = select(candidates.collect(), request.options);
        Ok(selected.iter().map(|candidate| entity(candidate, &request.text, &words, &labels)).collect())
    }
}

/// The tokenizer, with the markers.
fn open_tokenizer(config: &GlinerConfig, folder: &Path, tokenizer: &Path) -> Result<Tokenizer> {
    let opened = Tokenizer::from_folder(tokenizer).map_err(|error| match error {
        Error::Missing { path, message } if tokenizer == folder => {
            let name = &config.model_name;
            let advice = format!("many GLiNER folders have none; give that of {name}, with which training began");
            Error::missing(path, format!("{message}; {advice} (`--tokenizer`, `Gliner::with_tokenizer`)"))
        }
        other => other,
    })?;
    opened.with_special_tokens(&["[FLERT]", &config.ent_token, &config.sep_token])
}

/// The ids of the markers, if they are those that the model was trained with.
fn markers(config: &GlinerConfig, folder: &Path, tokenizer: &Tokenizer) -> Result<Markers> {
    let id = |token: &str| {
        let problem = || Error::tokenizer(folder, format!("it has no token `{token}` after that was added"));
        tokenizer.id(token).ok_or_else(problem)
    };
    let markers = Markers { label: id(&config.ent_token)?, separator: id(&config.sep_token)? };
    if config.class_token_index >= 0 && i64::from(markers.label) != config.class_token_index {
        let problem = format!(
            "`{}` has the id {}, but class_token_index of gliner_config.json is {}: this is not the tokenizer that the model \
             was trained with, which is that of {}",
            config.ent_token, markers.label, config.class_token_index, config.model_name
        );
        return Err(Error::tokenizer(folder, problem));
    }
    Ok(markers)
}

/// The labels without repetitions, in their order.
fn distinct(labels: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = Vec::with_capacity(labels.len());
    for label in labels {
        if !distinct.contains(&label.as_str()) {
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
