//! Task heads over a backbone, and their losses. One head serves DeBERTa and RoBERTa alike; where the families differ, the
//! backbone's configuration says how ([`BackboneConfig`]).

pub mod loss;
mod masked_lm;
mod multiple_choice;
mod question_answering;
mod replaced_token;
mod sequence;
mod token;

use burn::{
    module::{Module, ModuleDisplay},
    tensor::Device,
};

pub use crate::model::inference::InferenceModel;
pub use masked_lm::{DebertaForMaskedLm, LmHead, MaskedLm, MaskedLmLayout, RobertaForMaskedLm};
pub use multiple_choice::MultipleChoice;
pub use question_answering::{AnswerLogits, QuestionAnswering};
pub use replaced_token::ReplacedTokenDetection;
pub use sequence::{SequenceClassification, SequenceLabels};
pub use token::TokenClassification;

use crate::{
    config::{Activation, DebertaConfig, RobertaConfig, TaskConfig},
    model::{
        DebertaModel, ModelOutput, Pooler, attention::PreparedPositions, init::Init, input::ModelInput, linear::Linear,
        roberta::RobertaModel,
    },
};

/// An encoder that heads can stand on.
pub trait Backbone: InferenceModel<Output = ModelOutput> + Module + ModuleDisplay {
    /// Its configuration.
    type Config: BackboneConfig<Backbone = Self>;
}

/// The configuration of a backbone, as heads see it.
pub trait BackboneConfig {
    /// The encoder it describes.
    type Backbone: Backbone<Config = Self>;

    /// A backbone with fresh parameters.
    fn backbone(&self, device: &Device) -> Self::Backbone;

    /// Labels and losses.
    fn task(&self) -> &TaskConfig;

    /// Sizes, dropouts and activations of heads.
    fn head_settings(&self) -> HeadSettings;

    /// The same for multiple choice, where a family has its own.
    fn choice_settings(&self) -> HeadSettings {
        self.head_settings()
    }
}

/// What heads take from a backbone's configuration.
#[derive(Clone, Copy, Debug)]
pub struct HeadSettings {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Dropout in front of the pooler's projection.
    pub pooler_dropout: f64,
    /// The pooler's activation.
    pub pooler_activation: Activation,
    /// Dropout in front of a classifier over the pooled text.
    pub classifier_dropout: f64,
    /// Dropout in front of a classifier over tokens.
    pub token_dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Epsilon of LayerNorms.
    pub layer_norm_eps: f64,
}

impl HeadSettings {
    /// The maker of a head's layers.
    pub(crate) fn init<'a>(&self, device: &'a Device) -> Init<'a> {
        Init { device, std: self.initializer_range, epsilon: self.layer_norm_eps }
    }

    pub(crate) fn pooler(&self, init: &Init<'_>) -> Pooler {
        Pooler::new(init, self.hidden_size, self.pooler_dropout, self.pooler_activation)
    }
}

impl InferenceModel for DebertaModel {
    type Output = ModelOutput;

    fn forward(&self, input: ModelInput) -> ModelOutput {
        self.forward(input)
    }

    fn prepare_positions(&self, length: usize) -> Option<PreparedPositions> {
        self.encoder().prepare_positions(length)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.linears()
    }
}

impl Backbone for DebertaModel {
    type Config = DebertaConfig;
}

impl BackboneConfig for DebertaConfig {
    type Backbone = DebertaModel;

    fn backbone(&self, device: &Device) -> DebertaModel {
        self.init(device)
    }

    fn task(&self) -> &TaskConfig {
        &self.task
    }

    fn head_settings(&self) -> HeadSettings {
        HeadSettings {
            hidden_size: self.hidden_size,
            pooler_dropout: self.pooler_dropout,
            pooler_activation: self.pooler_hidden_act,
            classifier_dropout: self.classifier_dropout(),
            token_dropout: self.hidden_dropout_prob,
            initializer_range: self.initializer_range,
            layer_norm_eps: self.layer_norm_eps,
        }
    }
}

impl InferenceModel for RobertaModel {
    type Output = ModelOutput;

    fn forward(&self, input: ModelInput) -> ModelOutput {
        self.forward(input)
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        self.linears()
    }
}

impl Backbone for RobertaModel {
    type Config = RobertaConfig;
}

impl BackboneConfig for RobertaConfig {
    type Backbone = RobertaModel;

    fn backbone(&self, device: &Device) -> RobertaModel {
        self.init(device)
    }

    fn task(&self) -> &TaskConfig {
        &self.task
    }

    fn head_settings(&self) -> HeadSettings {
        HeadSettings {
            hidden_size: self.hidden_size,
            // `RobertaClassificationHead` drops out on both sides of its projection.
            pooler_dropout: self.classifier_dropout(),
            pooler_activation: Activation::Tanh,
            classifier_dropout: self.classifier_dropout(),
            token_dropout: self.classifier_dropout(),
            initializer_range: self.initializer_range,
            layer_norm_eps: self.layer_norm_eps,
        }
    }

    /// `RobertaForMultipleChoice` stands on the pooler of the bare model, which drops nothing out.
    fn choice_settings(&self) -> HeadSettings {
        HeadSettings { pooler_dropout: 0.0, ..self.head_settings() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DebertaVersion;

    #[test]
    fn multiple_choice_of_roberta_stands_on_the_bare_pooler() {
        let roberta = RobertaConfig { classifier_dropout: Some(0.3), ..RobertaConfig::default() };
        assert_eq!((roberta.head_settings().pooler_dropout, roberta.choice_settings().pooler_dropout), (0.3, 0.0));
        assert_eq!(roberta.choice_settings().classifier_dropout, 0.3);
        let deberta = DebertaConfig { pooler_dropout: 0.2, ..DebertaConfig::new(DebertaVersion::V2) };
        assert_eq!(deberta.choice_settings().pooler_dropout, 0.2);
    }
}
