//! Task heads over a [`Backbone`], with their losses. One head serves DeBERTa and RoBERTa alike; where the families differ, the
//! configuration says how.

mod dense;
mod dual_encoder;
mod gliclass;
pub(crate) mod gliner;
#[doc(hidden)]
pub mod loss;
mod masked_lm;
mod means;
mod multiple_choice;
mod pooling;
mod question_answering;
mod replaced_token;
mod sequence;
mod settings;
mod text_encoder;
mod token;

#[doc(hidden)]
pub use crate::model::InferenceModel;
pub use crate::model::MaskedPositions;
pub(crate) use dense::Dense;
pub use dual_encoder::DualEncoder;
pub use gliclass::GliClass;
pub use gliner::{Gliner, GlinerLayout, GlinerOptions, GlinerTargets, GlinerVectors, spans};
pub use loss::FocalLoss;
pub use masked_lm::{MaskedLm, MaskedLmLayout};
pub use multiple_choice::MultipleChoice;
pub use pooling::Pooling;
pub use question_answering::{AnswerLogits, QuestionAnswering};
pub use replaced_token::ReplacedTokenDetection;
pub use sequence::{RankedLists, SequenceClassification, SequenceLabels};
pub(crate) use text_encoder::of_length_one;
pub use text_encoder::{AlignmentLoss, TextEncoder};
pub use token::TokenClassification;

use crate::model::{Backbone, input::ModelInput};
use settings::HeadSettings;

/// The [`InferenceModel`] of heads: what a method makes of an input alone. The backbone is in the field `backbone`.
macro_rules! inference_model {
    ($($head:ident::$method:ident => $output:ty),* $(,)?) => {
        $(impl InferenceModel for $head {
            type Output = $output;

            fn forward(&self, input: ModelInput) -> $output {
                <$head>::$method(self, input)
            }

            fn backbone(&self) -> &Backbone {
                &self.backbone
            }

            fn backbone_mut(&mut self) -> &mut Backbone {
                &mut self.backbone
            }
        })*
    };
}
inference_model! {
    GliClass::states => burn::Tensor<3>,
    Gliner::states => burn::Tensor<3>,
    MaskedLm::forward => burn::Tensor<3>,
    QuestionAnswering::forward => AnswerLogits,
    ReplacedTokenDetection::forward => burn::Tensor<2>,
    SequenceClassification::forward => burn::Tensor<2>,
    TextEncoder::forward => burn::Tensor<2>,
    TokenClassification::forward => burn::Tensor<3>,
}
