//! What training needs of a head: logits, their loss, and how two passes over one batch are compared (for [`sift`](super::sift)).

use burn::{
    Tensor,
    module::{Module, ModuleDisplay},
    tensor::{Bool, Int},
};

use crate::{
    heads::{
        AnswerLogits, Backbone, DebertaForMaskedLm, MaskedLm, MultipleChoice, QuestionAnswering, RobertaForMaskedLm,
        SequenceClassification, SequenceLabels, TokenClassification, loss,
    },
    model::{input::ModelInput, masked_positions::MaskedPositions},
};

/// A model with a head that can be trained.
pub trait Objective: Module + ModuleDisplay {
    /// What a batch is trained towards.
    type Labels: Clone + Send;
    /// What the model computes.
    type Logits: Clone;

    /// Runs the model.
    fn logits(&self, input: ModelInput, labels: &Self::Labels) -> Self::Logits;

    /// The mean loss of the batch, \[1\].
    fn loss(&self, logits: Self::Logits, labels: Self::Labels) -> Tensor<1>;

    /// What two passes over the batch are compared by. The mask is true at tokens; none where nothing is padded.
    fn compared(&self, logits: Self::Logits, labels: &Self::Labels, mask: Option<&Tensor<2, Bool>>) -> Compared;
}

/// Predictions in a form in which two passes can be compared.
#[derive(Clone, Debug)]
pub enum Compared {
    /// Logits of a distribution a row, [rows, classes].
    Distributions(Tensor<2>),
    /// Plain numbers, [rows, outputs].
    Numbers(Tensor<2>),
}

/// First and last token of each answer.
#[derive(Clone, Debug)]
pub struct AnswerLabels {
    /// \[batch\]
    pub starts: Tensor<1, Int>,
    /// \[batch\]
    pub ends: Tensor<1, Int>,
}

/// The right one of each question's choices.
#[derive(Clone, Debug)]
pub struct ChoiceLabels {
    /// Number of choices a question.
    pub choices: usize,
    /// \[questions\]
    pub right: Tensor<1, Int>,
}

impl<B: Backbone> Objective for SequenceClassification<B> {
    type Labels = SequenceLabels;
    type Logits = Tensor<2>;

    fn logits(&self, input: ModelInput, _labels: &SequenceLabels) -> Tensor<2> {
        self.forward(input)
    }

    fn loss(&self, logits: Tensor<2>, labels: SequenceLabels) -> Tensor<1> {
        self.loss(logits, labels)
    }

    /// A row a text; of several labels each is a distribution of its own, over off (logit 0) and on.
    fn compared(&self, logits: Tensor<2>, labels: &SequenceLabels, _mask: Option<&Tensor<2, Bool>>) -> Compared {
        match labels {
            SequenceLabels::Classes(_) => Compared::Distributions(logits),
            SequenceLabels::MultiHot(_) => {
                let on = logits.flatten::<1>(0, 1).unsqueeze_dim::<2>(1);
                Compared::Distributions(Tensor::cat(vec![on.zeros_like(), on], 1))
            }
            SequenceLabels::Values(_) => Compared::Numbers(logits),
        }
    }
}

impl<B: Backbone> Objective for TokenClassification<B> {
    type Labels = Tensor<2, Int>;
    type Logits = Tensor<3>;

    fn logits(&self, input: ModelInput, _labels: &Self::Labels) -> Tensor<3> {
        self.forward(input)
    }

    fn loss(&self, logits: Tensor<3>, labels: Self::Labels) -> Tensor<1> {
        self.loss(logits, labels)
    }

    /// A row a token, special tokens included and padding left out.
    fn compared(&self, logits: Tensor<3>, _labels: &Self::Labels, mask: Option<&Tensor<2, Bool>>) -> Compared {
        let rows = logits.flatten::<2>(0, 1);
        Compared::Distributions(match mask {
            Some(mask) => {
                let tokens = mask.clone().flatten::<1>(0, 1).argwhere().squeeze_dim::<1>(1);
                rows.select(0, tokens)
            }
            None => rows,
        })
    }
}

impl<B: Backbone> Objective for QuestionAnswering<B> {
    type Labels = AnswerLabels;
    type Logits = AnswerLogits;

    fn logits(&self, input: ModelInput, _labels: &AnswerLabels) -> AnswerLogits {
        self.forward(input)
    }

    fn loss(&self, logits: AnswerLogits, labels: AnswerLabels) -> Tensor<1> {
        self.loss(logits, labels.starts, labels.ends)
    }

    /// A row a start and a row an end, over the positions that are not padding.
    fn compared(&self, logits: AnswerLogits, _labels: &AnswerLabels, mask: Option<&Tensor<2, Bool>>) -> Compared {
        let rows = [logits.start, logits.end].map(|side| match mask {
            // Finite, so that its probability of zero times its logarithm is zero.
            Some(mask) => side.mask_fill(mask.clone().bool_not(), -1e4),
            None => side,
        });
        Compared::Distributions(Tensor::cat(rows.to_vec(), 0))
    }
}

impl<B: Backbone> Objective for MultipleChoice<B> {
    type Labels = ChoiceLabels;
    type Logits = Tensor<2>;

    fn logits(&self, input: ModelInput, labels: &ChoiceLabels) -> Tensor<2> {
        self.forward(input, labels.choices)
    }

    fn loss(&self, logits: Tensor<2>, labels: ChoiceLabels) -> Tensor<1> {
        self.loss(logits, labels.right)
    }

    /// A row a question, over its choices.
    fn compared(&self, logits: Tensor<2>, _labels: &ChoiceLabels, _mask: Option<&Tensor<2, Bool>>) -> Compared {
        Compared::Distributions(logits)
    }
}

/// The masked positions of a batch, and the tokens that were there.
#[derive(Clone, Debug)]
pub struct MaskedLmLabels {
    /// The masked positions.
    pub positions: MaskedPositions,
    /// The ids of their tokens, \[masked\].
    pub tokens: Tensor<1, Int>,
}

macro_rules! masked_lm {
    ($model:ty) => {
        impl Objective for $model {
            type Labels = MaskedLmLabels;
            /// [masked, vocabulary]
            type Logits = Tensor<2>;

            fn logits(&self, input: ModelInput, labels: &MaskedLmLabels) -> Tensor<2> {
                self.predict_at(input, &labels.positions)
            }

            fn loss(&self, logits: Tensor<2>, labels: MaskedLmLabels) -> Tensor<1> {
                loss::cross_entropy(logits, labels.tokens)
            }

            fn compared(&self, logits: Tensor<2>, _: &MaskedLmLabels, _: Option<&Tensor<2, Bool>>) -> Compared {
                Compared::Distributions(logits)
            }
        }
    };
}
masked_lm!(DebertaForMaskedLm);
masked_lm!(RobertaForMaskedLm);
