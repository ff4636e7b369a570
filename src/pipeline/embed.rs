//! One vector for each text, from the encoder's last hidden states.

use std::path::{Path, PathBuf};

use burn::Tensor;

use super::{Pipeline, PipelineOptions, Pooling, Runner};
use crate::{
    Error, Result,
    batch::Encoding,
    checkpoint::{LoadOptions, LoadReport, SentenceModules, read_dense},
    heads::Dense,
    model::{AttentionMask, Backbone, inference::Prepared},
    scores::rows,
    tokenizer::{Text, Truncation},
};

/// How texts are embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedOptions {
    /// How the vectors of tokens become one for the text. With several poolings, their vectors are concatenated.
    pub pooling: Vec<Pooling>,
    /// The linear maps that the pooled vector passes, in this order: folders of the module `Dense` of sentence-transformers.
    pub dense: Vec<PathBuf>,
    /// How many numbers of a vector are kept, from its start; if none, all. Vectors of a model that was trained for several
    /// sizes (Matryoshka) lose little by it. What is kept is scaled, where vectors are.
    pub size: Option<usize>,
    /// Whether every vector is scaled to length 1. Then the dot product of two vectors is their cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    /// The mean, as it is.
    fn default() -> Self {
        Self { pooling: vec![Pooling::Mean], dense: Vec::new(), size: None, normalize: false }
    }
}

impl EmbedOptions {
    /// What a folder of sentence-transformers says in `1_Pooling/config.json` and `modules.json`; none if it is no such folder.
    ///
    /// # Errors
    /// A file that is not JSON, a pooling that is not known or none at all, or a module that is not supported.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let modules = SentenceModules::read(folder.as_ref())?;
        Ok(modules.map(|SentenceModules { pooling, dense, normalize }| Self { pooling, dense, size: None, normalize }))
    }
}

/// A text to be embedded.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// The text or pair of texts.
    pub text: Text<'static>,
    /// How many numbers of its vector are kept, from its start; if none, all.
    pub dimensions: Option<usize>,
    /// Whether its vector is scaled to length 1.
    pub normalize: bool,
}

/// Texts in, vectors out, by the encoder alone. Any checkpoint will do.
pub struct Embedder {
    runner: Runner,
    model: Prepared<Backbone>,
    dense: Vec<Dense>,
    width: usize,
    options: EmbedOptions,
}

impl Embedder {
    /// Opens a checkpoint folder. It embeds by [`EmbedOptions::default`], unless
    /// [`with_options`](Self::with_options) says otherwise. In a folder of sentence-transformers, `max_seq_length` in
    /// `sentence_bert_config.json` is the default of [`PipelineOptions::max_length`].
    ///
    /// # Errors
    /// A missing or damaged file, or options that do not fit the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let length = SentenceModules::max_length(folder)?;
        let (runner, model): (Runner, Prepared<Backbone>) = Runner::open_with_length(folder, length, options)?;
        let width = runner.config().hidden_size();
        Ok(Self { runner, model, dense: Vec::new(), width, options: EmbedOptions::default() })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner.report()
    }

    /// The same with another way to embed.
    ///
    /// # Errors
    /// No pooling, a linear map that cannot be read or takes vectors of another size, or more numbers than vectors have.
    pub fn with_options(self, options: EmbedOptions) -> Result<Self> {
        if options.pooling.is_empty() {
            return Err(Error::setting("embed options", "no pooling is named, expected at least one"));
        }
        let PipelineOptions { device, precision, .. } = self.runner.options();
        let load = LoadOptions { dtype: precision.load_dtype(device)?, ..LoadOptions::default() };
        let (mut width, mut dense) = (self.runner.config().hidden_size() * options.pooling.len(), Vec::new());
        for folder in &options.dense {
            let map = read_dense(folder, &load, device)?;
            let [inputs, outputs] = map.widths();
            if inputs != width {
                let problem = format!("it takes vectors of {inputs} numbers, but those in front of it have {width}");
                return Err(Error::checkpoint(folder, problem));
            }
            width = outputs;
            dense.push(map);
        }
        check_size("size", options.size, width)?;
        Ok(Self { dense, width, options, ..self })
    }

    /// Numbers of a vector, if it is not cut.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How it embeds.
    pub fn options(&self) -> &EmbedOptions {
        &self.options
    }

    /// Embeds texts or pairs of texts. A vector has the model's hidden size, times the number of poolings, unless a linear map
    /// or [`EmbedOptions::size`] gives it another one. Texts that are too long are cut at the end.
    ///
    /// # Errors
    /// No text at all, tokens that the model does not have, or vectors that are not finite.
    pub fn embed<'a>(&self, texts: impl IntoIterator<Item = impl Into<Text<'a>>>) -> Result<Vec<Vec<f32>>> {
        let EmbedOptions { size: dimensions, normalize, .. } = self.options;
        let request = |text: Text<'a>| EmbedRequest { text: text.into_owned(), dimensions, normalize };
        let requests: Vec<EmbedRequest> = texts.into_iter().map(|text| request(text.into())).collect();
        self.run(&requests)
    }
}

impl Pipeline for Embedder {
    type Request = EmbedRequest;
    type Answer = Vec<f32>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, request: &EmbedRequest) -> Result<Vec<Encoding>> {
        check_size("dimensions", request.dimensions, self.width)?;
        self.runner.encode(std::slice::from_ref(&request.text), Truncation::LongestFirst, None)
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let input = self.runner.input(batch)?;
        let mask = input.attention_mask.clone();
        let states = self.model.forward(input).last_hidden_state;
        let pooled = self
            .options
            .pooling
            .iter()
            .map(|pooling| pooling.pool(states.clone(), mask.as_ref().map(AttentionMask::tensor)));
        let vectors = Tensor::cat(pooled.collect(), 1);
        rows(self.dense.iter().fold(vectors, |vectors, map| map.forward(vectors)))
    }

    fn decode(&self, request: &EmbedRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<f32>> {
        self.runner.check_finite(sequences, &rows)?;
        let mut embedding = rows.concat();
        embedding.truncate(request.dimensions.unwrap_or(usize::MAX));
        if request.normalize {
            normalize(&mut embedding);
        }
        Ok(embedding)
    }
}

/// Refuses to keep no number of a vector, or more than it has.
fn check_size(name: &str, size: Option<usize>, width: usize) -> Result<()> {
    match size {
        Some(size) if !(1..=width).contains(&size) => {
            Err(Error::value(name, size, format!("from 1 to {width}, the numbers of a vector")))
        }
        _ => Ok(()),
    }
}

/// Scales to length 1; the zero vector stays as it is.
fn normalize(embedding: &mut [f32]) {
    let norm = embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_vectors_have_length_one() {
        let mut vector = [3.0, 4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        normalize(&mut [0.0, 0.0]);
    }
}
