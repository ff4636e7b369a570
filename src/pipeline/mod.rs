//! Text in, answers out: one file for each task.
//!
//! Every task opens a checkpoint folder (`config.json`, weights, tokenizer) with [`PipelineOptions`]. Then it takes any
//! number of inputs at once: they are run in batches of similar length, and the answers have the order of the inputs.
//! Each is a [`Pipeline`] of three steps, which can also be taken one by one: encode, forward, decode. It is an error if the checkpoint does not have the task's head, or if an answer is not finite. Texts that are too
//! long are counted ([`PipelineOptions::truncated`]).
//!
//! ```no_run
//! use deberta_burn::pipeline::{Classifier, PipelineOptions};
//!
//! # fn main() -> deberta_burn::Result<()> {
//! let options = PipelineOptions::new(deberta_burn::device::device("flex")?);
//! let classifier = Classifier::from_pretrained("path/to/checkpoint", options)?;
//! for scores in classifier.classify(["a fine film", "two hours of boredom"])? {
//!     println!("{} ({:.3})", scores[0].label, scores[0].score);
//! }
//! # Ok(())
//! # }
//! ```

mod activation;
mod answer;
mod classify;
mod embed;
mod entities;
mod fill_mask;
mod gliner;
mod rerank;
mod runner;
mod stages;
mod tag;
mod zero_shot;

pub use answer::{Answer, AnswerOptions, AnswerRequest, Answers, Question, QuestionAnswerer};
pub use classify::{Classifier, ClassifyRequest, LabelScore};
pub use embed::{EmbedOptions, EmbedRequest, Embedder};
pub use entities::Entity;
pub use fill_mask::{FillMask, FillRequest, FilledMask, WordScore};
pub use gliner::{Gliner, GlinerRequest};
pub use rerank::{RankRequest, RankedPassage, Reranker};
pub use runner::{PipelineOptions, Progress, Runner, TruncationListener};
pub use stages::Pipeline;
pub use tag::{TagOptions, TagRequest, TokenTagger, WordScores};
pub use zero_shot::{ZeroShot, ZeroShotOptions, ZeroShotRequest};

pub use crate::heads::{GlinerOptions, Pooling};
use crate::{Result, checkpoint::locate};

macro_rules! from_pretrained {
    ($($pipeline:ident),*) => {$(
        impl $pipeline {
            /// Opens a checkpoint by its folder or by its id on the Hugging Face Hub, see [`locate`].
            ///
            /// # Errors
            /// As [`from_folder`](Self::from_folder) and [`locate`].
            pub fn from_pretrained(model: &str, options: PipelineOptions) -> Result<Self> {
                Self::from_folder(locate(model, None)?, options)
            }
        }
    )*};
}
from_pretrained!(Classifier, Embedder, FillMask, Gliner, QuestionAnswerer, Reranker, TokenTagger, ZeroShot);
