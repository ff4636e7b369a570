//! From texts with entities to the model's input, and to what is asked of it.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::asked::Asker;
use crate::{
    Error, Result,
    batch::Encoding,
    config::{GlinerConfig, SpanMode},
    data::{EntityText, WordSpan},
    heads::{
        GlinerTargets,
        gliner::{scored, span_index},
        spans,
    },
    prompt::{self, Limits, Markers, Positions, given_words},
    tokenizer::Tokenizer,
};

/// The texts of a file.
#[derive(Clone, Debug)]
pub struct EntityExamples {
    pub(super) texts: Vec<EntityText>,
    pub(super) asker: Asker,
    /// The windows of each text, asked for all types that it is asked for in an evaluation.
    pub(super) windows: Vec<Vec<Encoding>>,
}

impl EntityExamples {
    /// The number of entities, and of those that have too many words for the model.
    pub fn too_wide(&self, config: &GlinerConfig) -> (usize, usize) {
        let entities = || self.texts.iter().flat_map(|text| &text.entities);
        let is_wide = |WordSpan(start, end, _): &&WordSpan| {
            config.span_mode != SpanMode::TokenLevel && end - start >= config.max_width
        };
        (entities().count(), entities().filter(is_wide).count())
    }
}

/// From texts to the model's input.
#[derive(Clone, Debug)]
pub struct EntityReader {
    pub(super) config: GlinerConfig,
    tokenizer: Tokenizer,
    markers: Markers,
    max_length: usize,
}

impl EntityReader {
    /// Reads as the model with this configuration and tokenizer does, at most `max_length` tokens at once.
    ///
    /// # Errors
    /// A tokenizer of another model, or one without the markers.
    pub fn new(config: &GlinerConfig, tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        let markers = Markers::of(config, tokenizer, Path::new(&config.model_name))?;
        Ok(Self { config: config.clone(), tokenizer: tokenizer.clone(), markers, max_length })
    }

    /// Encodes the texts of the file at `path`. A text with more words than the model reads at once is read in overlapping
    /// windows, as in inference.
    ///
    /// # Errors
    /// A text of which the tokenizer leaves nothing, or types that leave no room for it.
    pub fn examples(&self, texts: Vec<EntityText>, path: &Path) -> Result<EntityExamples> {
        let asker = Asker::new(&texts);
        let encode = |text: &EntityText| {
            let fail = |problem: String| Error::line(path, text.line, problem);
            let windows = self.encode(text, &asker.all(text)).map_err(|error| {
                fail(format!("{error}; or say in each row which types it is asked for (`ner_labels`)"))
            })?;
            match windows.iter().any(|window| !self.positions(window).words.is_empty()) {
                true => Ok(windows),
                false => Err(fail("the tokenizer leaves nothing of its words".into())),
            }
        };
        let windows = texts.iter().map(encode).collect::<Result<_>>()?;
        Ok(EntityExamples { texts, asker, windows })
    }

    /// The windows of a text that is asked for some types.
    pub(super) fn encode(&self, text: &EntityText, types: &[&str]) -> Result<Vec<Encoding>> {
        let limits = Limits { words: self.config.max_len, tokens: self.max_length };
        prompt::encode(&self.tokenizer, self.markers, types, &given_words(&text.words), limits)
    }

    /// Where labels and words stand in a sequence.
    pub(super) fn positions(&self, sequence: &Encoding) -> Positions {
        Positions::of(sequence, self.markers)
    }

    /// What is asked of a batch: of each sequence, its text's entities and the types that it is asked for.
    pub(super) fn targets(&self, sequences: &[(Positions, &[WordSpan], &[&str])], device: &Device) -> GlinerTargets {
        let (max_width, size) = scored(&self.config);
        let most = |count: fn(&Positions) -> usize| sequences.iter().map(|(positions, ..)| count(positions)).max();
        let words = most(|positions| positions.words.len()).unwrap_or(0);
        let labels = most(|positions| positions.labels.len()).unwrap_or(0);
        let spans: Vec<_> = spans(words, max_width).collect();
        let shape = [sequences.len(), spans.len(), labels * size];
        let row = spans.len() * labels * size;
        let (mut targets, mut mask) = (vec![0f32; shape.iter().product()], vec![0f32; shape.iter().product()]);
        for (((positions, entities, types), targets), mask) in
            sequences.iter().zip(targets.chunks_mut(row)).zip(mask.chunks_mut(row))
        {
            for ((_, last), mask) in spans.iter().zip(mask.chunks_mut(labels * size)) {
                if *last < positions.words.len() {
                    mask[..size * types.len()].fill(1.0);
                }
            }
            let place = |word: &usize| positions.words.binary_search_by_key(word, |(word, _)| *word).ok();
            for WordSpan(start, end, kind) in *entities {
                let Some(label) = types.iter().position(|asked| asked == kind) else { continue };
                // An entity that is not wholly in this window is in another one.
                let (Some(start), Some(end)) = (place(start), place(end)) else { continue };
                let mut set = |(item, part): (usize, usize)| targets[(item * labels + label) * size + part] = 1.0;
                match self.config.span_mode {
                    SpanMode::TokenLevel => {
                        [(start, 0), (end, 1)]
                            .into_iter()
                            .chain((start..=end).map(|word| (word, 2)))
                            .for_each(&mut set);
                    }
                    SpanMode::Marker | SpanMode::MarkerV0 => {
                        span_index(words, max_width, (start, end)).into_iter().for_each(|item| set((item, 0)));
                    }
                }
            }
        }
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        GlinerTargets { targets: tensor(targets), mask: tensor(mask) }
    }
}
