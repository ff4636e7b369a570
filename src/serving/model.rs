//! What one checkpoint can answer.

use std::{fmt, path::Path, sync::Arc};

use clap::ValueEnum;

use crate::{
    Checkpoint, Error, ModelConfig, Result,
    batch::Encoding,
    pipeline::{
        AnswerOptions, Classifier, EmbedOptions, Embedder, FillMask, Pipeline, PipelineOptions, Question,
        QuestionAnswerer, Reranker, Runner, TagOptions, TokenTagger, ZeroShot,
    },
    tokenizer::EncodeOptions,
};

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Labels for texts and pairs; also ranking and zero-shot, if the labels allow it.
    Classify,
    /// Entities.
    Ner,
    /// Answers that are spans of a context.
    Answer,
    /// Words for masks.
    FillMask,
    /// Vectors.
    Embed,
}

impl Task {
    /// The task of a folder: vectors if it is one of sentence-transformers, otherwise by `architectures` and the head.
    ///
    /// # Errors
    /// Files that cannot be read, or no architecture that tells.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        if EmbedOptions::from_folder(folder)?.is_some() {
            return Ok(Self::Embed);
        }
        let architectures = &ModelConfig::from_folder(folder)?.task().architectures.clone();
        let heads = [
            ("ForSequenceClassification", Self::Classify),
            ("ForTokenClassification", Self::Ner),
            ("ForQuestionAnswering", Self::Answer),
            ("ForMaskedLM", Self::FillMask),
        ];
        let checkpoint = Checkpoint::open(folder)?;
        let head = heads.iter().find(|(head, _)| !architectures.is_empty() && checkpoint.is_for(head, architectures));
        match head {
            Some((_, task)) => Ok(*task),
            None if architectures.iter().any(|name| name.ends_with("Model")) => Ok(Self::Embed),
            None => {
                let problem = format!(
                    "the architectures in its config.json are {architectures:?}, which says no task: give it (`--task`)"
                );
                Err(Error::unsupported(format!("model {}", folder.display()), problem))
            }
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().expect("no task is hidden").get_name().fmt(formatter)
    }
}

/// A checkpoint ready to answer.
#[expect(clippy::large_enum_variant, reason = "there is one, and it is not moved")]
pub enum Model {
    /// Labels, and what else can be made of them.
    Labels(Labels),
    /// Entities.
    Entities(TokenTagger),
    /// Answers in a context.
    Answers(QuestionAnswerer),
    /// Words for masks.
    Words(FillMask),
    /// Vectors.
    Vectors(Embedder),
}

/// One sequence classification head and all its uses.
pub struct Labels {
    classifier: Arc<Classifier>,
    reranker: Option<Reranker>,
    zero_shot: Option<ZeroShot>,
}

impl Labels {
    /// Whether the one use of the model is to rank: it has one output.
    pub fn only_ranks(&self) -> bool {
        self.reranker.is_some() && self.classifier.task().num_labels() == 1
    }
}

impl Model {
    /// Opens a checkpoint folder for a task.
    ///
    /// # Errors
    /// What the pipeline of the task refuses.
    pub fn open(folder: &Path, task: Task, options: PipelineOptions) -> Result<Self> {
        Ok(match task {
            Task::Classify => {
                let classifier = Arc::new(Classifier::from_folder(folder, options)?);
                // What does not fit these uses has others.
                let (reranker, zero_shot) = (Reranker::new(classifier.clone()), ZeroShot::new(classifier.clone()));
                Self::Labels(Labels { classifier, reranker: reranker.ok(), zero_shot: zero_shot.ok() })
            }
            Task::Ner => Self::Entities(TokenTagger::from_folder(folder, options)?),
            Task::Answer => Self::Answers(QuestionAnswerer::from_folder(folder, options)?),
            Task::FillMask => Self::Words(FillMask::from_folder(folder, options)?),
            Task::Embed => {
                let embed = EmbedOptions::from_folder(folder)?.unwrap_or_default();
                Self::Vectors(Embedder::from_folder(folder, options)?.with_options(embed)?)
            }
        })
    }

    /// The task.
    pub fn task(&self) -> Task {
        match self {
            Self::Labels(_) => Task::Classify,
            Self::Entities(_) => Task::Ner,
            Self::Answers(_) => Task::Answer,
            Self::Words(_) => Task::FillMask,
            Self::Vectors(_) => Task::Embed,
        }
    }

    /// The opened checkpoint.
    pub fn runner(&self) -> &Runner {
        match self {
            Self::Labels(labels) => labels.classifier.runner(),
            Self::Entities(tagger) => tagger.runner(),
            Self::Answers(answerer) => answerer.runner(),
            Self::Words(model) => model.runner(),
            Self::Vectors(embedder) => embedder.runner(),
        }
    }

    /// The arithmetic of all its uses, see [`Pipeline::forward`].
    ///
    /// # Errors
    /// See there.
    pub fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Labels(labels) => labels.classifier.forward(batch),
            Self::Entities(tagger) => tagger.forward(batch),
            Self::Answers(answerer) => answerer.forward(batch),
            Self::Words(model) => model.forward(batch),
            Self::Vectors(embedder) => embedder.forward(batch),
        }
    }

    /// Answers a fixed request, to prove that the model does.
    ///
    /// # Errors
    /// What the model fails with.
    pub fn prove(&self) -> Result<()> {
        const TEXT: &str = "The quick brown fox jumps over the lazy dog.";
        match self {
            Self::Labels(labels) => labels.classifier.classify([TEXT]).map(drop),
            Self::Entities(tagger) => tagger.tag(&[TEXT], TagOptions::default()).map(drop),
            Self::Answers(answerer) => {
                let question = Question { question: "Who jumps?".into(), context: TEXT.into() };
                answerer.answer(&[question], &AnswerOptions::default()).map(drop)
            }
            Self::Words(model) => model.fill(&[TEXT.replace("fox", "[MASK]")], 1).map(drop),
            Self::Vectors(embedder) => embedder.embed([TEXT]).map(drop),
        }
    }

    /// A sequence of `length` tokens (at least the four of a mask and a word), for measurements.
    ///
    /// # Errors
    /// A maximal length that leaves no room for text.
    pub fn sample(&self, length: usize) -> Result<Encoding> {
        let tokenizer = self.runner().tokenizer();
        let mask = tokenizer.token(tokenizer.mask_id()).unwrap_or_default();
        let options = EncodeOptions { max_length: self.runner().max_length(), ..EncodeOptions::default() };
        let mut encoding = tokenizer.encode(&[format!("{mask} a").into()], &options)?.remove(0);
        let more = length.saturating_sub(encoding.len());
        repeat(&mut encoding.ids, more);
        repeat(&mut encoding.type_ids, more);
        repeat(&mut encoding.offsets, more);
        repeat(&mut encoding.word_ids, more);
        repeat(&mut encoding.sequence_ids, more);
        repeat(&mut encoding.special, more);
        Ok(encoding)
    }
}

/// Repeats the entry of the last token of the text, the one before the last.
fn repeat<T: Clone>(list: &mut Vec<T>, times: usize) {
    let last = list.len() - 1;
    let entry = list[last - 1].clone();
    list.splice(last..last, std::iter::repeat_n(entry, times));
}

/// A pipeline that a served model may have.
pub trait Served: Pipeline + Sized + 'static {
    /// What it does, and what a model needs for it.
    const DOES: &'static str;

    /// The model's pipeline of this kind, if it has one.
    fn of(model: &Model) -> Option<&Self>;
}

macro_rules! served {
    ($($pipeline:ty, $does:literal, $pattern:pat => $found:expr;)*) => {$(
        impl Served for $pipeline {
            const DOES: &'static str = $does;

            fn of(model: &Model) -> Option<&Self> {
                match model {
                    $pattern => $found,
                    _ => None,
                }
            }
        }
    )*};
}

served! {
    Classifier, "label texts", Model::Labels(labels) => Some(&labels.classifier);
    Reranker, "rank passages: that needs a classifier with one output or two labels",
        Model::Labels(labels) => labels.reranker.as_ref();
    ZeroShot, "choose among any labels: that needs a classifier with a label `entailment`",
        Model::Labels(labels) => labels.zero_shot.as_ref();
    TokenTagger, "find entities", Model::Entities(tagger) => Some(tagger);
    QuestionAnswerer, "find answers", Model::Answers(answerer) => Some(answerer);
    FillMask, "guess words", Model::Words(model) => Some(model);
    Embedder, "make vectors", Model::Vectors(embedder) => Some(embedder);
}
