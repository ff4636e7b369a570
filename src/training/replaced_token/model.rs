//! Generator and discriminator.

use std::path::Path;

use burn::{
    Tensor,
    module::Module,
    tensor::{Bool, DType, Device, FloatDType, IndexingUpdateOp, Int},
};

use super::{ReplacedToken, Sharing};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, HeadPolicy, LoadOptions, LoadReport},
    config::DebertaConfig,
    heads::{MaskedLm, MaskedLmLayout, ReplacedTokenDetection},
    kernels::draws,
    model::{
        Backbone,
        embeddings::{EmbeddingSource, EmbeddingTables},
        input::ModelInput,
    },
    training::objective::{MaskedLmLabels, Objective},
};

/// The generator's folder, inside the discriminator's.
pub(super) const GENERATOR: &str = "generator";

/// The configuration of a discriminator's generator: the same width and half of the layers, but at least two.
///
/// # Errors
/// A discriminator with fewer than two layers.
pub fn generator_config(discriminator: &DebertaConfig) -> Result<DebertaConfig> {
    let layers = discriminator.num_hidden_layers;
    if layers < 2 {
        return Err(Error::config(
            "num_hidden_layers",
            layers,
            "at least 2 for a generator with an enhanced mask decoder",
        ));
    }
    let mut config = DebertaConfig { num_hidden_layers: (layers / 2).max(2), legacy: false, ..discriminator.clone() };
    config.task.architectures = vec![config.model_type.class_name("ForMaskedLM")];
    Ok(config)
}

/// A generator and a discriminator that learn together.
#[derive(Module, Debug)]
pub struct ReplacedTokenPretraining {
    pub(super) generator: MaskedLm,
    pub(super) discriminator: ReplacedTokenDetection,
    #[module(skip)]
    pub(super) options: ReplacedToken,
}

/// A text in which the generator replaced words.
#[derive(Clone, Debug)]
pub struct Corrupted {
    /// What the discriminator reads.
    pub input: ModelInput,
    /// True where the word is not the original one, [batch, length].
    pub replaced: Tensor<2, Bool>,
}

impl ReplacedTokenPretraining {
    /// Two fresh models; `config` describes the discriminator.
    ///
    /// # Errors
    /// A configuration that allows no [generator](generator_config).
    pub fn new(config: &DebertaConfig, options: ReplacedToken, device: &Device) -> Result<Self> {
        let (generator, discriminator) = Self::parts(config, device)?;
        Ok(Self { generator, discriminator, options }.without_own_tables())
    }

    /// Begins with the weights in a folder. If the folder comes from this kind of training and has a generator in it,
    /// both models go on from there. If it holds any other DeBERTa, the discriminator begins with all of its layers,
    /// the generator with the lower half of them, and both with its embeddings. Dense weights become those of Switch layers if
    /// `config` has them. Also returns the load reports of
    /// generator and discriminator.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`Checkpoint::load`].
    pub fn load(
        folder: &Path,
        config: &DebertaConfig,
        options: ReplacedToken,
        device: &Device,
    ) -> Result<(Self, [LoadReport; 2])> {
        let load = LoadOptions { dtype: FloatDType::F32, head: HeadPolicy::InitialiseIfMissing };
        let (generator, discriminator) = Self::parts(config, device)?;
        let own = folder.join(GENERATOR);
        let source = if own.is_dir() { &own } else { folder };
        let config = config.clone().into();
        let (generator, generator_report) = Checkpoint::open_for(source, &config)?.load(generator, &load)?;
        let (discriminator, report) = Checkpoint::open_for(folder, &config)?.load(discriminator, &load)?;
        let tables = discriminator.backbone().embeddings().shareable();
        let model = Self { generator, discriminator, options };
        let base = model.generator.backbone().embeddings().shareable();
        let model = match options.sharing {
            // Exactly zero if both come from one file.
            Sharing::GradientDisentangled => model.with_own_tables(tables.zip(base, |own, base| own - base)),
            Sharing::Shared => model.without_own_tables(),
            Sharing::NotShared => model,
        };
        Ok((model, [generator_report, report]))
    }

    /// A generator and a discriminator with all their parameters, to be filled with weights.
    pub(super) fn parts(config: &DebertaConfig, device: &Device) -> Result<(MaskedLm, ReplacedTokenDetection)> {
        let generator = generator_config(config)?;
        let generator = MaskedLm::new(&generator.into(), MaskedLmLayout::EnhancedMaskDecoder, device)?;
        Ok((generator, ReplacedTokenDetection::new(&config.clone().into(), device)))
    }

    /// Puts zeros into the embeddings that the discriminator takes from the generator.
    fn without_own_tables(self) -> Self {
        if self.options.sharing == Sharing::NotShared {
            return self;
        }
        let zeros = self.discriminator.backbone().embeddings().shareable().map(|table| table.zeros_like());
        self.with_own_tables(zeros)
    }

    fn with_own_tables(self, tables: EmbeddingTables) -> Self {
        let with_tables = |backbone: Backbone| backbone.map_embeddings(|own| own.with_tables(tables));
        Self { discriminator: self.discriminator.map_backbone(with_tables), ..self }
    }

    /// The generator.
    pub fn generator(&self) -> &MaskedLm {
        &self.generator
    }

    /// How the two are trained together.
    pub fn options(&self) -> ReplacedToken {
        self.options
    }

    /// The discriminator in training. Its own token and position embeddings are E_delta if gradients are disentangled,
    /// and unused zeros if embeddings are shared.
    pub fn discriminator(&self) -> &ReplacedTokenDetection {
        &self.discriminator
    }

    /// The discriminator on its own, with the embeddings that it reads: E_G + E_delta, or E_G if they are shared.
    pub fn merged_discriminator(&self) -> ReplacedTokenDetection {
        if self.options.sharing == Sharing::NotShared {
            return self.discriminator.clone();
        }
        let own = self.discriminator.backbone().embeddings().shareable();
        let tables = own.zip(self.generator.backbone().embeddings().shareable(), |own, base| own + base);
        self.clone().with_own_tables(tables).discriminator
    }

    /// The generator's logits at the masked positions of a text.
    ///
    /// # Shapes
    /// - output: [masked, vocabulary]
    pub fn generator_logits(&self, masked: ModelInput, labels: &MaskedLmLabels) -> Tensor<2> {
        self.generator.logits(masked, labels)
    }

    /// L_G, \[1\].
    ///
    /// # Shapes
    /// - logits: [masked, vocabulary]
    pub fn generator_loss(&self, logits: Tensor<2>, labels: MaskedLmLabels) -> Tensor<1> {
        Objective::loss(&self.generator, logits, labels)
    }

    /// The discriminator's logits for a text, with the embeddings that [`Sharing`] gives it.
    ///
    /// # Shapes
    /// - output: [batch, length]; above 0 if a token was more likely replaced than not
    pub fn discriminator_logits(&self, text: ModelInput) -> Tensor<2> {
        let base = || self.generator.backbone().embeddings().shareable();
        let embedding = match self.options.sharing {
            Sharing::GradientDisentangled => EmbeddingSource::Based(base().map(Tensor::detach)),
            Sharing::Shared => EmbeddingSource::Shared(base()),
            Sharing::NotShared => EmbeddingSource::Tables,
        };
        self.discriminator.forward(ModelInput { embedding, ..text })
    }

    /// L_D, without its weight, \[1\].
    ///
    /// # Shapes
    /// - logits: [batch, length]
    pub fn discriminator_loss(&self, logits: Tensor<2>, text: Corrupted) -> Tensor<1> {
        self.discriminator.loss(logits, text.replaced, text.input.attention_mask.as_ref())
    }
}

/// Draws a word for each position from the softmax of its logits, without gradient: the largest of `logit - ln(-ln u)`
/// (Gumbel's trick). `uniforms` are the u, from (0, 1); if none, they are drawn.
///
/// # Shapes
/// - logits, uniforms: [masked, vocabulary]
/// - output: ids, \[masked\]
pub fn sample(logits: Tensor<2>, uniforms: Option<Tensor<2>>) -> Tensor<1, Int> {
    // The f32 numbers next to 0 and 1: at 0 and 1 themselves, the logarithms are infinite.
    const RANGE: (f64, f64) = (f32::MIN_POSITIVE as f64, 1.0 - f32::EPSILON as f64 / 2.0);
    let logits = logits.detach().cast(DType::F32);
    let uniforms = uniforms.unwrap_or_else(|| draws::uniforms(logits.dims(), &logits.device()));
    let noise = (-uniforms.clamp(RANGE.0, RANGE.1).log()).log();
    (logits - noise).argmax(1).squeeze_dim(1)
}

impl Corrupted {
    /// Puts drawn words, \[places\], into the masked positions of a text.
    pub fn new(masked: &ModelInput, labels: &MaskedLmLabels, drawn: Tensor<1, Int>) -> Self {
        let ids = masked.input_ids.clone();
        let (shape, rows) = (ids.dims(), labels.positions.rows(&ids.device()));
        let put = |into: Tensor<1, Int>, values| into.select_assign(0, rows.clone(), values, IndexingUpdateOp::Add);
        let flat = ids.clone().flatten::<1>(0, 1);
        let change = drawn.clone() - flat.clone().select(0, rows.clone());
        let replaced = put(flat.zeros_like(), drawn.not_equal(labels.tokens.clone()).int());
        let input = ModelInput { input_ids: put(flat, change).reshape(shape), ..masked.clone() };
        Self { input, replaced: replaced.equal_elem(1).reshape(shape) }
    }
}
