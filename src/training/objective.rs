//! What training needs from a head: logits, their loss, and a way to compare two passes over one batch (for
//! [`sift`](super::sift)).

use std::path::Path;

use burn::{
    Tensor,
    module::{Module, ModuleDisplay},
    tensor::Int,
};

use crate::{
    Result,
    checkpoint::{self, Checkpoint, LoadOptions, write_sentence_modules},
    config::Configuration,
    heads::{
        AlignmentLoss, AnswerLogits, DualEncoder, FocalLoss, Gliner, GlinerLayout, GlinerTargets, MaskedLm,
        MultipleChoice, QuestionAnswering, SequenceClassification, SequenceLabels, TextEncoder, TokenClassification,
        loss, of_length_one,
    },
    model::{
        AttentionMask, Backbone, InferenceModel,
        input::ModelInput,
        masked_positions::{MaskedPositions, indices},
    },
};

/// The folder of the second one of two encoders, inside that of the first.
pub const COUNTERPARTS: &str = "counterparts";

/// A model with a head that can be trained.
pub trait Objective: Module + ModuleDisplay {
    /// The labels of a batch.
    type Labels: Clone + Send;
    /// What the model computes.
    type Logits: Clone;

    /// The folders that [`write`](Self::write) writes into, relative to the folder it is given.
    const FOLDERS: &'static [&'static str] = &[""];

    /// The models below the head, whose linear maps can be adapted: one, or several that are trained together.
    fn backbones_mut(&mut self) -> Vec<&mut Backbone>;

    /// Writes the model as a checkpoint folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn write(&self, config: &dyn Configuration, folder: &Path) -> Result<()> {
        checkpoint::write(self, config, folder, None)
    }

    /// Fills the model from a folder that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// A file that cannot be read.
    fn read(self, folder: &Path, options: &LoadOptions) -> Result<Self> {
        Ok(Checkpoint::open(folder)?.load(self, options)?.0)
    }

    /// Runs the model.
    fn logits(&self, input: ModelInput, labels: &Self::Labels) -> Self::Logits;

    /// The mean loss of the batch, \[1\].
    fn loss(&self, logits: Self::Logits, labels: Self::Labels) -> Tensor<1>;

    /// The predictions by which two passes over the batch are compared. The mask is true at tokens; none if nothing is
    /// padded.
    fn compared(&self, logits: Self::Logits, labels: &Self::Labels, mask: Option<&AttentionMask>) -> Compared;
}

/// Predictions, in a form that allows to compare two passes.
#[derive(Clone, Debug)]
pub enum Compared {
    /// Logits, one distribution for each row, [rows, classes].
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

/// The index of each question's right choice.
#[derive(Clone, Debug)]
pub struct ChoiceLabels {
    /// Number of choices of each question.
    pub choices: usize,
    /// \[questions\]
    pub right: Tensor<1, Int>,
}

impl Objective for SequenceClassification {
    type Labels = SequenceLabels;
    type Logits = Tensor<2>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, _labels: &SequenceLabels) -> Tensor<2> {
        self.forward(input)
    }

    fn loss(&self, logits: Tensor<2>, labels: SequenceLabels) -> Tensor<1> {
        self.loss(logits, labels)
    }

    /// One row for each text. With several labels, each label is a row of its own: a distribution over off (logit 0)
    /// and on.
    fn compared(&self, logits: Tensor<2>, labels: &SequenceLabels, _mask: Option<&AttentionMask>) -> Compared {
        match labels {
            SequenceLabels::Classes(_) => Compared::Distributions(logits),
            SequenceLabels::MultiHot(_) => {
                let on = logits.flatten::<1>(0, 1).unsqueeze_dim::<2>(1);
                Compared::Distributions(Tensor::cat(vec![on.zeros_like(), on], 1))
            }
            SequenceLabels::Values(_) | SequenceLabels::Lists(_) => Compared::Numbers(logits),
        }
    }
}

/// What the vectors of a batch of texts learn from.
#[allow(clippy::large_enum_variant, reason = "there is one in a batch")]
#[derive(Clone, Debug)]
pub enum VectorLabels {
    /// The batch itself, see [`TextEncoder::pair_loss`].
    Pairs {
        /// The number of pairs.
        pairs: usize,
        /// The sizes that count beside that of the whole vectors.
        sizes: Vec<usize>,
    },
    /// Vectors that are given.
    Given {
        /// One for each text, [batch, width].
        vectors: Tensor<2>,
        /// How they are compared.
        loss: AlignmentLoss,
    },
}

impl Objective for TextEncoder {
    type Labels = VectorLabels;
    /// Vectors of any length, [texts, width].
    type Logits = Tensor<2>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    /// A folder of sentence-transformers, which says how states are pooled.
    fn write(&self, config: &dyn Configuration, folder: &Path) -> Result<()> {
        checkpoint::write(self, config, folder, None)?;
        write_sentence_modules(folder, self.pooling())
    }

    fn logits(&self, input: ModelInput, _labels: &VectorLabels) -> Tensor<2> {
        self.forward(input)
    }

    fn loss(&self, logits: Tensor<2>, labels: VectorLabels) -> Tensor<1> {
        match labels {
            VectorLabels::Pairs { pairs, sizes } => self.pair_loss(logits, pairs, &sizes),
            VectorLabels::Given { vectors, loss } => self.alignment_loss(logits, vectors, loss),
        }
    }

    /// Directions alone.
    fn compared(&self, logits: Tensor<2>, _labels: &VectorLabels, _mask: Option<&AttentionMask>) -> Compared {
        Compared::Numbers(of_length_one(logits))
    }
}

/// What two encoders learn from.
#[derive(Clone, Debug)]
pub struct DualLabels {
    /// What belongs to the texts, in their order, and what belongs to none behind it.
    pub counterparts: ModelInput,
    /// The number of texts.
    pub pairs: usize,
    /// The sizes that count beside that of the whole vectors.
    pub sizes: Vec<usize>,
}

impl Objective for DualEncoder {
    type Labels = DualLabels;
    /// Vectors of any length, [texts + counterparts, width].
    type Logits = Tensor<2>;

    /// The encoder of texts, and that of their counterparts in a folder inside it.
    const FOLDERS: &'static [&'static str] = &["", COUNTERPARTS];

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        self.backbones_mut().into()
    }

    fn write(&self, config: &dyn Configuration, folder: &Path) -> Result<()> {
        self.texts.write(config, folder)?;
        let folder = folder.join(COUNTERPARTS);
        self.counterparts.write(&self.config, &folder)?;
        self.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.save(folder))
    }

    fn read(self, folder: &Path, options: &LoadOptions) -> Result<Self> {
        let Self { texts, counterparts, config, tokenizer } = self;
        let texts = Checkpoint::open(folder)?.load(texts, options)?.0;
        let counterparts = Checkpoint::open(folder.join(COUNTERPARTS))?.load(counterparts, options)?.0;
        Ok(Self { texts, counterparts, config, tokenizer })
    }

    fn logits(&self, input: ModelInput, labels: &DualLabels) -> Tensor<2> {
        self.forward(input, labels.counterparts.clone())
    }

    fn loss(&self, logits: Tensor<2>, labels: DualLabels) -> Tensor<1> {
        self.texts.pair_loss(logits, labels.pairs, &labels.sizes)
    }

    /// Directions alone.
    fn compared(&self, logits: Tensor<2>, _labels: &DualLabels, _mask: Option<&AttentionMask>) -> Compared {
        Compared::Numbers(of_length_one(logits))
    }
}

impl Objective for TokenClassification {
    type Labels = Tensor<2, Int>;
    type Logits = Tensor<3>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, _labels: &Self::Labels) -> Tensor<3> {
        self.forward(input)
    }

    fn loss(&self, logits: Tensor<3>, labels: Self::Labels) -> Tensor<1> {
        self.loss(logits, labels)
    }

    /// One row for each token, special tokens included, padding left out.
    fn compared(&self, logits: Tensor<3>, _labels: &Self::Labels, mask: Option<&AttentionMask>) -> Compared {
        let rows = logits.flatten::<2>(0, 1);
        Compared::Distributions(match mask {
            Some(mask) => {
                let real = mask.real().expect("a device that computes can be read");
                let tokens = (0..real.len()).filter(|token| real[*token]);
                rows.select(0, indices(tokens, &mask.tensor().device()))
            }
            None => rows,
        })
    }
}

impl Objective for QuestionAnswering {
    type Labels = AnswerLabels;
    type Logits = AnswerLogits;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, _labels: &AnswerLabels) -> AnswerLogits {
        self.forward(input)
    }

    fn loss(&self, logits: AnswerLogits, labels: AnswerLabels) -> Tensor<1> {
        self.loss(logits, labels.starts, labels.ends)
    }

    /// A row a start and a row an end, over the positions that are not padding.
    fn compared(&self, logits: AnswerLogits, _labels: &AnswerLabels, mask: Option<&AttentionMask>) -> Compared {
        let rows = [logits.start, logits.end].map(|side| match mask {
            // Finite, so that a probability of zero times its logarithm is zero and not NaN.
            Some(mask) => side.mask_fill(mask.tensor().clone().bool_not(), -1e4),
            None => side,
        });
        Compared::Distributions(Tensor::cat(rows.to_vec(), 0))
    }
}

impl Objective for MultipleChoice {
    type Labels = ChoiceLabels;
    type Logits = Tensor<2>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, labels: &ChoiceLabels) -> Tensor<2> {
        self.forward(input, labels.choices)
    }

    fn loss(&self, logits: Tensor<2>, labels: ChoiceLabels) -> Tensor<1> {
        self.loss(logits, labels.right)
    }

    /// One row for each question: a distribution over its choices.
    fn compared(&self, logits: Tensor<2>, _labels: &ChoiceLabels, _mask: Option<&AttentionMask>) -> Compared {
        Compared::Distributions(logits)
    }
}

/// Where the labels and words of a batch stand, and what is asked of them.
#[derive(Clone, Debug)]
pub struct GlinerLabels {
    /// Where they stand.
    pub layout: GlinerLayout,
    /// What is asked.
    pub targets: GlinerTargets,
    /// The loss.
    pub focal: FocalLoss,
}

impl Objective for Gliner {
    type Labels = GlinerLabels;
    /// As [`Gliner::score`] gives them.
    type Logits = Tensor<3>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, labels: &GlinerLabels) -> Tensor<3> {
        self.forward(input, &labels.layout)
    }

    fn loss(&self, logits: Tensor<3>, GlinerLabels { targets, focal, .. }: GlinerLabels) -> Tensor<1> {
        self.loss(logits, targets, focal)
    }

    /// Each score of a span (or word) and label is a row of its own: a distribution over off (logit 0) and on.
    fn compared(&self, logits: Tensor<3>, labels: &GlinerLabels, _mask: Option<&AttentionMask>) -> Compared {
        let own = labels.targets.mask.clone().flatten::<1>(0, 2).greater_elem(0.5).argwhere().squeeze_dim::<1>(1);
        let on = logits.flatten::<1>(0, 2).select(0, own).unsqueeze_dim::<2>(1);
        Compared::Distributions(Tensor::cat(vec![on.zeros_like(), on], 1))
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

impl Objective for MaskedLm {
    type Labels = MaskedLmLabels;
    /// [masked, vocabulary]
    type Logits = Tensor<2>;

    fn backbones_mut(&mut self) -> Vec<&mut Backbone> {
        vec![self.backbone_mut()]
    }

    fn logits(&self, input: ModelInput, labels: &MaskedLmLabels) -> Tensor<2> {
        self.predict_at(input, &labels.positions)
    }

    fn loss(&self, logits: Tensor<2>, labels: MaskedLmLabels) -> Tensor<1> {
        loss::cross_entropy(logits, labels.tokens)
    }

    fn compared(&self, logits: Tensor<2>, _labels: &MaskedLmLabels, _mask: Option<&AttentionMask>) -> Compared {
        Compared::Distributions(logits)
    }
}
