//! Labels that are read together with the text, in one pass: by a GLiClass model.

use std::{ops::Range, path::Path};

use burn::tensor::Device;

use super::{ZeroShotOptions, ZeroShotRequest};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::Checkpoint,
    config::{ClassTokenPooling, GliClassConfig},
    heads,
    model::inference::Prepared,
    pipeline::{PipelineOptions, Runner, runner::Parts},
    scores::{rows, sigmoid, softmax},
    tokenizer::{Text, Tokenizer, Truncation, TruncationSide},
};

/// The token in front of each label.
const LABEL: &str = "<<LABEL>>";
/// The token between labels and text.
const SEPARATOR: &str = "<<SEP>>";
/// The most tokens of a sequence in the reference's pipeline.
const MAX_LENGTH: usize = 1024;

/// An opened folder.
pub(super) struct GliClass {
    pub runner: Runner,
    model: Prepared<heads::GliClass>,
    config: GliClassConfig,
}

impl GliClass {
    pub fn open(folder: &Path, options: PipelineOptions) -> Result<Self> {
        if options.truncation_side == Some(TruncationSide::Left) {
            let problem = "a GLiClass model has its labels in front of the text, of which only the end can be cut";
            return Err(Error::setting("truncation", problem));
        }
        let config = GliClassConfig::from_folder(folder)?;
        let mut tokenizer = Tokenizer::from_folder(folder)?;
        tokenizer.set_truncation_side(TruncationSide::Right);
        for (token, key, id) in [
            (LABEL, "class_token_index", config.class_token_index),
            (SEPARATOR, "text_token_index", config.text_token_index),
        ] {
            let found = tokenizer.id(token);
            if found.map(i64::from) != Some(id) {
                let found = found.map_or("no id".to_owned(), |id| format!("the id {id}"));
                let problem =
                    format!("`{token}` has {found}, but {key} of config.json is {id}; take the model's own tokenizer");
                return Err(Error::tokenizer(folder, problem));
            }
        }
        let max_length = options.max_length.unwrap_or(MAX_LENGTH);
        let (encoder, checkpoint) = (config.encoder_config.clone().into(), Checkpoint::open(folder)?);
        let parts = Parts { config: encoder, tokenizer, checkpoint, max_length };
        let new = |device: &Device| heads::GliClass::new(&config, device);
        let (runner, model) = Runner::around_encoder("GLiClass", parts, options, new)?;
        Ok(Self { runner, model, config })
    }

    pub fn encode(&self, request: &ZeroShotRequest) -> Result<Vec<Encoding>> {
        if request.options.template != ZeroShotOptions::default().template {
            let problem = "a GLiClass model reads labels as they are, without a template";
            return Err(Error::setting("hypothesis template", problem));
        }
        let is_marked = |label: &&str| label.contains(LABEL) || label.contains(SEPARATOR);
        if let Some(label) = request.labels().find(is_marked) {
            let problem = format!("`{label}` holds {LABEL} or {SEPARATOR}, which mark labels");
            return Err(Error::setting("candidates", problem));
        }
        let labels: String = request.labels().map(|label| format!("{LABEL}{label}")).collect();
        let text = Text::from(format!("{labels}{SEPARATOR}{}", request.text));
        let sequences = self.runner.encode(&[text], Truncation::LongestFirst, None)?;
        let (count, found) = (request.labels().count(), self.tokens(&sequences[0]).len().saturating_sub(1));
        if found != count {
            let max_length = self.runner.max_length();
            let problem =
                format!("{count} labels do not fit into {max_length} tokens; give fewer, or allow a longer input");
            return Err(Error::setting("candidates", problem));
        }
        Ok(sequences)
    }

    pub fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let tokens: Vec<_> = batch.iter().map(|sequence| self.tokens(sequence)).collect();
        let input = self.runner.input(batch)?;
        let logits = rows(self.model.run(input, |model, input| model.forward(input, &tokens)))?;
        // The first of the tokens are the text's.
        Ok(logits.into_iter().zip(tokens).map(|(row, tokens)| row[..tokens.len() - 1].to_vec()).collect())
    }

    /// The probabilities of the labels, `each` on its own or against each other.
    pub fn scores(logits: &[f32], each: bool) -> Vec<f32> {
        match each {
            true => logits.iter().copied().map(sigmoid).collect(),
            false => softmax(logits),
        }
    }

    /// Whose mean is the text's vector, and then whose is each label's; nothing, if the end of the labels was cut off.
    fn tokens(&self, sequence: &Encoding) -> Vec<Range<usize>> {
        let is = |index: i64| move |id: &u32| i64::from(*id) == index;
        let GliClassConfig { class_token_index, text_token_index, embed_class_token, .. } = self.config;
        let Some(separator) = sequence.ids.iter().position(is(text_token_index)) else { return Vec::new() };
        let markers: Vec<usize> = (0..separator).filter(|&token| is(class_token_index)(&sequence.ids[token])).collect();
        let [text, end] = match self.config.extract_text_features {
            true => [separator, separator],
            false => [0, sequence.len()],
        };
        let label = |(index, marker): (usize, &usize)| {
            let first = marker + usize::from(!embed_class_token);
            match self.config.class_token_pooling {
                ClassTokenPooling::First => first..first + 1,
                ClassTokenPooling::Average => first..*markers.get(index + 1).unwrap_or(&end),
            }
        };
        std::iter::once(text..text + 1).chain(markers.iter().enumerate().map(label)).collect()
    }
}
