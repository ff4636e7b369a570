//! What one checkpoint can answer.

use std::{fmt, path::Path, sync::Arc};

use clap::ValueEnum;

use crate::{
    Checkpoint, Error, ModelConfig, Result,
    batch::Encoding,
    config::{GliClassConfig, GlinerConfig, ProblemType},
    pipeline::{
        AnswerOptions, AnswerRequest, Classifier, ClassifyRequest, EmbedOptions, EmbedRequest, Embedder, FillMask,
        FillRequest, Gliner, GlinerOptions, GlinerRequest, Pipeline, PipelineOptions, Question, QuestionAnswerer,
        RankRequest, Reranker, Runner, TagOptions, TagRequest, TokenTagger, ZeroShot, ZeroShotOptions, ZeroShotRequest,
    },
};

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Labels for texts and pairs; also ranking and zero-shot, if the labels allow it.
    Classify,
    /// Labels that come with the text (GLiClass, or natural language inference).
    ZeroShot,
    /// Entities.
    Ner,
    /// Entities of types that come with the text (GLiNER).
    Gliner,
    /// Answers that are spans of a context.
    Answer,
    /// Words for masks.
    FillMask,
    /// Vectors.
    Embed,
}

impl Task {
    /// The task of a folder: that of its kind (sentence-transformers, GLiNER, GLiClass), otherwise by `architectures` and the
    /// head.
    ///
    /// # Errors
    /// Files that cannot be read, or no architecture that tells.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        if EmbedOptions::from_folder(folder)?.is_some() {
            return Ok(Self::Embed);
        }
        if GlinerConfig::is_in(folder) {
            return Ok(Self::Gliner);
        }
        if GliClassConfig::is_in(folder) {
            return Ok(Self::ZeroShot);
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
    /// Labels that come with the text.
    AnyLabels(ZeroShot),
    /// Entities.
    Entities(TokenTagger),
    /// Entities of types that come with the text.
    AnyEntities(Gliner),
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
    /// What its outputs mean.
    pub fn problem_type(&self) -> ProblemType {
        self.classifier.task().problem_type()
    }

    /// Whether the one use of the model is to rank: it has one output.
    pub fn only_ranks(&self) -> bool {
        self.reranker.is_some() && self.classifier.task().num_labels() == 1
    }
}

/// The same with the pipeline of any model.
macro_rules! with_pipeline {
    ($model:expr, $pipeline:ident => $does:expr) => {
        match $model {
            Model::Labels(labels) => {
                let $pipeline = &*labels.classifier;
                $does
            }
            Model::AnyLabels($pipeline) => $does,
            Model::Entities($pipeline) => $does,
            Model::AnyEntities($pipeline) => $does,
            Model::Answers($pipeline) => $does,
            Model::Words($pipeline) => $does,
            Model::Vectors($pipeline) => $does,
        }
    };
}

impl Model {
    /// Opens a checkpoint folder for a task; a folder of GLiNER may lack a tokenizer, which then comes from another one.
    ///
    /// # Errors
    /// What the pipeline of the task refuses, or a tokenizer for another task.
    pub fn open(folder: &Path, tokenizer: Option<&Path>, task: Task, options: PipelineOptions) -> Result<Self> {
        if tokenizer.is_some() && task != Task::Gliner {
            let problem = format!("only GLiNER models take one from elsewhere, and this one is for the task {task}");
            return Err(Error::setting("tokenizer", problem));
        }
        Ok(match task {
            Task::Classify => {
                let classifier = Arc::new(Classifier::from_folder(folder, options)?);
                // What does not fit these uses has others.
                let (reranker, zero_shot) = (Reranker::new(classifier.clone()), ZeroShot::new(classifier.clone()));
                Self::Labels(Labels { classifier, reranker: reranker.ok(), zero_shot: zero_shot.ok() })
            }
            Task::ZeroShot => Self::AnyLabels(ZeroShot::from_folder(folder, options)?),
            Task::Ner => Self::Entities(TokenTagger::from_folder(folder, options)?),
            Task::Gliner => Self::AnyEntities(Gliner::with_tokenizer(folder, tokenizer.unwrap_or(folder), options)?),
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
            Self::AnyLabels(_) => Task::ZeroShot,
            Self::Entities(_) => Task::Ner,
            Self::AnyEntities(_) => Task::Gliner,
            Self::Answers(_) => Task::Answer,
            Self::Words(_) => Task::FillMask,
            Self::Vectors(_) => Task::Embed,
        }
    }

    /// The opened checkpoint.
    pub fn runner(&self) -> &Runner {
        with_pipeline!(self, pipeline => pipeline.runner())
    }

    /// The arithmetic of all its uses, see [`Pipeline::forward`].
    ///
    /// # Errors
    /// See there.
    pub fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        with_pipeline!(self, pipeline => pipeline.forward(batch))
    }

    /// Answers a fixed request, to prove that the model does.
    ///
    /// # Errors
    /// What the model fails with.
    pub fn prove(&self) -> Result<()> {
        with_pipeline!(self, pipeline => prove(pipeline))
    }

    /// A sequence of `length` tokens (at least those of the fixed request), for measurements.
    ///
    /// # Errors
    /// A maximal length that leaves no room for the fixed request.
    pub fn sample(&self, length: usize) -> Result<Encoding> {
        let mut encoding = with_pipeline!(self, pipeline => sample(pipeline))?;
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

fn prove<P: Served>(pipeline: &P) -> Result<()> {
    pipeline.run(&[P::example()]).map(drop)
}

fn sample<P: Served>(pipeline: &P) -> Result<Encoding> {
    Ok(pipeline.encode(&P::example())?.remove(0))
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

    /// A request that every model of this kind can answer. [`Model::sample`] repeats the last token of its text, which is best an
    /// ordinary one: a mask, for one, has a row of logits of its own.
    fn example() -> Self::Request;
}

/// The text of all examples, short enough for any model.
const TEXT: &str = "a quick fox";

macro_rules! served {
    ($($pipeline:ty, $does:literal, { $($pattern:pat => $found:expr),+ }, $example:expr;)*) => {$(
        impl Served for $pipeline {
            const DOES: &'static str = $does;

            fn of(model: &Model) -> Option<&Self> {
                match model {
                    $($pattern => $found,)+
                    _ => None,
                }
            }

            fn example() -> Self::Request {
                $example
            }
        }
    )*};
}

served! {
    Classifier, "label texts", { Model::Labels(labels) => Some(&labels.classifier) },
        ClassifyRequest { text: TEXT.into(), raw_scores: false };
    Reranker, "rank passages: that needs a classifier with one output or two labels",
        { Model::Labels(labels) => labels.reranker.as_ref() },
        RankRequest::new("fox", vec![TEXT.into()]);
    ZeroShot, "choose among any labels: that needs a GLiClass model, or a classifier with a label `entailment`",
        { Model::AnyLabels(model) => Some(model), Model::Labels(labels) => labels.zero_shot.as_ref() },
        ZeroShotRequest { text: TEXT.into(), candidates: vec!["fox".into()], options: ZeroShotOptions::default() };
    TokenTagger, "find entities", { Model::Entities(tagger) => Some(tagger) },
        TagRequest { text: TEXT.into(), options: TagOptions::default() };
    Gliner, "find entities of any type: that needs a GLiNER model", { Model::AnyEntities(gliner) => Some(gliner) },
        GlinerRequest { text: TEXT.into(), labels: vec!["fox".into()], options: GlinerOptions::default() };
    QuestionAnswerer, "find answers", { Model::Answers(answerer) => Some(answerer) },
        AnswerRequest {
            question: Question { question: "who".into(), context: TEXT.into() },
            options: AnswerOptions::default(),
        };
    FillMask, "guess words", { Model::Words(model) => Some(model) },
        FillRequest { text: "a [MASK] fox".into(), top_k: 1 };
    Embedder, "make vectors", { Model::Vectors(embedder) => Some(embedder) },
        EmbedRequest { text: TEXT.into(), dimensions: None, normalize: true };
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::repository::repository;

    #[test]
    fn a_sample_has_as_many_masks_as_the_example() {
        let (folder, options) = (repository("models/deberta-tiny"), PipelineOptions::new(Device::flex()));
        let model = Model::open(&folder, None, Task::FillMask, options).expect("the small model");
        let sample = model.sample(100).expect("a sample");
        let mask = model.runner().tokenizer().mask_id();
        assert_eq!((sample.len(), sample.ids.iter().filter(|id| **id == mask).count()), (100, 1));
    }
}
