//! What training of a GLiNER begins with: another GLiNER, or an encoder alone.

use std::path::Path;

use burn::tensor::Device;

use crate::{
    Error, ModelConfig, Result,
    checkpoint::Checkpoint,
    config::{DebertaVersion, GlinerConfig, SpanMode, TaskConfig},
    heads::Gliner,
    prompt::{Markers, open_tokenizer},
    tokenizer::Tokenizer,
};

/// A folder to begin with, opened.
#[derive(Debug)]
pub struct GlinerBase {
    /// The configuration of the model to be trained.
    pub config: GlinerConfig,
    /// The tokenizer, with the markers.
    pub tokenizer: Tokenizer,
    /// Whether the folder is that of a GLiNER, and not of an encoder.
    pub is_gliner: bool,
    /// Rows of the token embeddings in its weights.
    rows: usize,
}

impl GlinerBase {
    /// Opens a GLiNER folder (`gliner_config.json`), or that of a DeBERTa v2 or v3 (`config.json`), over which new layers are
    /// put: with the reference's settings, but no wider than the encoder. `name` is what the configuration calls an encoder
    /// (`model_name`), `tokenizer` another folder where this one has no tokenizer, and `span_mode` what is scored, by default
    /// spans by `markerV0`.
    ///
    /// # Errors
    /// A missing or damaged file, a model of another kind, or a GLiNER that scores something else.
    pub fn open(
        folder: impl AsRef<Path>,
        name: &str,
        tokenizer: Option<&Path>,
        span_mode: Option<SpanMode>,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let tokenizer = tokenizer.unwrap_or(folder);
        let is_gliner = GlinerConfig::is_in(folder);
        let mut config = match is_gliner {
            true => GlinerConfig::from_folder(folder)?,
            false => over_encoder(folder, name, span_mode)?,
        };
        if let Some(wanted) = span_mode.filter(|mode| *mode != config.span_mode) {
            let problem = format!("it is {wanted}, but the model in {} is a {}", folder.display(), config.span_mode);
            return Err(Error::setting("--span-mode", problem));
        }
        let tokenizer = open_tokenizer(&config, folder, tokenizer)?;
        let markers = Markers::of(&config, &tokenizer, folder)?;
        let rows = Checkpoint::open(folder)?.vocabulary().unwrap_or(config.encoder_config.vocab_size);
        // The reference has no rows but those of tokens.
        config.encoder_config.vocab_size = tokenizer.vocab_size();
        (config.vocab_size, config.class_token_index) = (tokenizer.vocab_size() as i64, i64::from(markers.label));
        Ok(Self { config, tokenizer, is_gliner, rows })
    }

    /// A model that the folder's weights fit. Its embeddings are then to be adapted to the tokenizer, see
    /// [`Gliner::with_vocabulary`].
    pub fn fresh(&self, config: &GlinerConfig, device: &Device) -> Gliner {
        let mut config = config.clone();
        config.encoder_config.vocab_size = self.rows;
        Gliner::new(&config, device)
    }
}

/// The configuration of a new GLiNER over the encoder in a folder.
fn over_encoder(folder: &Path, name: &str, span_mode: Option<SpanMode>) -> Result<GlinerConfig> {
    let mut encoder = match ModelConfig::from_folder(folder)? {
        ModelConfig::Deberta(encoder) if encoder.model_type == DebertaVersion::V2 => encoder,
        _ => {
            let problem = "the package gliner puts no other encoder than DeBERTa v2 and v3 under such a model";
            return Err(Error::unsupported(format!("model {}", folder.display()), problem));
        }
    };
    encoder.task = TaskConfig { architectures: vec![encoder.model_type.class_name("Model")], ..TaskConfig::default() };
    let config = GlinerConfig::new(encoder);
    let config = GlinerConfig {
        model_name: name.to_owned(),
        // Even, for the two directions of the LSTM.
        hidden_size: config.hidden_size.min(config.encoder_config.hidden_size).next_multiple_of(2),
        span_mode: span_mode.unwrap_or(config.span_mode),
        ..config
    };
    config.validate()?;
    Ok(config)
}
