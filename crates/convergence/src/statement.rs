//! What the report states about an experiment: its protocol, what makes it fair, the machine.

use std::env::consts;

use deberta_burn::device::describe;

use crate::{
    pool::Workers,
    protocol::{DOWNSTREAM_BATCH, LAYER_NORM_EPSILON, Settings},
    report::Report,
    tables::grouped,
    variant::Variant,
};

const SHORT_SEQUENCES: &str = "Sequences are as short as RoBERTa needs to learn at this width: the longer they are, and the fewer of \
    them are in a batch, the later it begins to attend to neighbours, while DeBERTa begins soon. With 64 tokens, batches of 32, three \
    layers and a vocabulary of 1,000, RoBERTa came no further than a loss of 5.27 in 2,400 steps at learning rates of 1e-3, 2e-3, 4e-3 \
    and 8e-3, where DeBERTa had 3.18 at 2e-3, with one seed. Fresh weights are scaled to the width; with a standard deviation of 0.02, \
    RoBERTa came to 5.71 instead of 5.68 after 2.0 million tokens.";

impl Report<'_> {
    /// Everything that all runs share, by subject.
    pub fn protocol(&self) -> Vec<(&'static str, String)> {
        let Settings { vocabulary, length, layers, hidden, heads, batch_size, steps, .. } = *self.settings;
        let tokens = self.results.rows.iter().map(|row| row.tokens).fold(0.0, f64::max);
        vec![
            ("Command", format!("convergence {}", self.command.join(" "))),
            ("Preset", self.preset.name().to_owned()),
            (
                "Text",
                format!(
                    "{} ({} tokens); validation on the first {} sequences of {}. SHA-256 {} and {}.",
                    self.data.train.display(),
                    grouped(self.text.tokens as f64),
                    self.settings.evaluated,
                    self.data.valid.display(),
                    self.data.digests[0],
                    self.data.digests[1],
                ),
            ),
            (
                "Vocabulary",
                format!("{} tokens, a unigram model trained on the training text, the same for all.", grouped(vocabulary as f64)),
            ),
            (
                "Models",
                format!(
                    "{layers} layers of width {hidden}, {heads} heads, feed-forward networks of width {}, sequences of {length} \
                     tokens, dropout {}. Fresh weights from a normal distribution with a standard deviation of \
                     {:.4} (0.02 at a width of 768){}, LayerNorms with an epsilon of {LAYER_NORM_EPSILON:e}, token embeddings tied to the output.",
                    self.settings.intermediate(),
                    self.settings.dropout,
                    self.settings.initializer_range(),
                    self.settings.scales.iter().map(|scale| format!(", {scale}")).collect::<String>(),
                ),
            ),
            (
                "RoBERTa",
                "Absolute positions at the input, predictions from the last layer.".to_owned(),
            ),
            (
                "DeBERTa",
                "Relative positions in attention by the terms c2p and p2c, projected by the content's projections as in v2 and \
                 v3, so that no layer has more parameters than RoBERTa's; every distance has a position of its own. Absolute \
                 positions in the enhanced mask decoder, which runs the last layer twice."
                    .to_owned(),
            ),
            (
                "Ablations",
                "\u{2212} EMD predicts from the last layer and has no absolute positions at all; \u{2212} c2p and \u{2212} p2c \
                 lack that term; \u{2212} (c2p + p2c) attends to contents alone and has only the decoder's absolute positions. RTD is \
                 replaced token detection with a generator of half the layers and gradient-disentangled embeddings, as v3; its \
                 loss is of another kind, so that only its fine-tuned score compares, and its parameters are of both models."
                    .to_owned(),
            ),
            (
                "Pretraining",
                format!(
                    "{} steps of {batch_size} sequences: {} tokens, {:.1} passes through the text. 15 % of the tokens are to be \
                     predicted (80 % masked, 10 % random, 10 % kept), others in each pass. AdamW (0.9, 0.999, 1e-6) with a \
                     weight decay of 0.01, gradients clipped to a norm of 1, learning rate rising over {} % of the steps and \
                     falling to 0 in a straight line.",
                    grouped(steps as f64),
                    grouped(tokens),
                    tokens / self.text.tokens as f64,
                    100.0 * self.settings.warmup,
                ),
            ),
            (
                "Fine-tuning",
                format!(
                    "{}: {} epoch(s) of train.tsv in batches of {DOWNSTREAM_BATCH}, learning rate {}, a fresh head (dense, \
                     tanh, linear, the same for all), accuracy on valid.tsv and test.tsv together; nothing is chosen by them.",
                    self.data.downstream.display(),
                    self.settings.downstream_epochs,
                    self.settings.downstream_learning_rate,
                ),
            ),
            (
                "Seeds",
                format!(
                    "{}, of fresh weights and of the order of batches. A figure \u{b1} another is the mean and the sample \
                     standard deviation over seeds.",
                    self.results.seeds().iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
                ),
            ),
            (
                "FLOP",
                "By formula: 2abc for a product of matrices [a, b] and [b, c], nothing for the rest, three forward passes for a \
                 step of training."
                    .to_owned(),
            ),
            ("Time", "Wall-clock time of training steps, without evaluations and fine-tuning; whatever else the machine did slowed them."
                    .to_owned()),
        ]
    }

    /// What speaks for a fair comparison, or against it.
    pub fn checks(&self) -> Vec<String> {
        let parameters = |variant| {
            self.models.iter().find(|model| model.variant == variant).map_or(0.0, |model| model.parameters as f64)
        };
        let more = 100.0 * (parameters(Variant::Deberta) / parameters(Variant::Roberta) - 1.0);
        let mut checks = vec![
            match self.results.same_tokens() {
                true => "At every evaluation, all runs of a seed had counted exactly the same tokens: they read the same \
                         batches in the same order, with the same tokens masked, for both follow from the seed alone."
                    .to_owned(),
                false => "Runs of one seed have NOT counted the same tokens: do not trust the comparison.".to_owned(),
            },
            match self.trials.is_empty() {
                true => "Learning rates were not tuned in this experiment.".to_owned(),
                false => "The learning rate of each model was tuned by itself, over the same values.".to_owned(),
            },
            format!("DeBERTa has {more:.1} % more parameters than RoBERTa; no layer has more."),
            "Initialisation, LayerNorm epsilon, dropout, optimiser, schedule, output head and fine-tuning head are the same; \
             RoBERTa is not the published recipe of another library, but runs through the same code."
                .to_owned(),
            "Every evaluation of every run predicts the same masked tokens of the same text, which no run is trained on."
                .to_owned(),
            "The comparison is by DeBERTa's own schedule: where it reaches RoBERTa's final loss, its learning rate has not yet \
             fallen, while RoBERTa's has. A shorter schedule would make it faster; this favours RoBERTa."
                .to_owned(),
        ];
        if self.settings.length < 64 && self.settings.hidden == 64 {
            checks.push(SHORT_SEQUENCES.to_owned());
        }
        checks
    }

    /// Where it ran.
    pub fn machine(&self) -> Vec<(&'static str, String)> {
        let Workers { processes, threads } = self.workers;
        let threads = threads.map_or_else(|| "all threads".to_owned(), |threads| format!("{threads} thread(s)"));
        vec![
            ("Processor", describe()),
            ("System", format!("{} on {}", consts::OS, consts::ARCH)),
            ("Device", self.settings.device.clone()),
            ("Runs at a time", format!("{processes}, each with {threads}")),
            ("Software", format!("deberta-burn {}, {}", env!("CARGO_PKG_VERSION"), self.settings.precision)),
        ]
    }
}
