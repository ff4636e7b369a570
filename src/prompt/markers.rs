//! The tokens around labels, and the tokenizer that has them.

use std::path::Path;

use crate::{Error, Result, config::GlinerConfig, tokenizer::Tokenizer};

/// The tokens around labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Markers {
    /// The id of the token in front of each label.
    pub label: u32,
    /// The id of the token behind the last label.
    pub separator: u32,
}

impl Markers {
    /// Their ids, if they are those that the model in `folder` was trained with.
    ///
    /// # Errors
    /// A tokenizer of another model, or one without the markers.
    pub fn of(config: &GlinerConfig, tokenizer: &Tokenizer, folder: &Path) -> Result<Self> {
        let id = |token: &str| {
            let problem = || Error::tokenizer(folder, format!("it has no token `{token}` after that was added"));
            tokenizer.id(token).ok_or_else(problem)
        };
        let markers = Self { label: id(&config.ent_token)?, separator: id(&config.sep_token)? };
        if config.class_token_index >= 0 && i64::from(markers.label) != config.class_token_index {
            let problem = format!(
                "`{}` has the id {}, but class_token_index of gliner_config.json is {}: this is not the tokenizer that the \
                 model was trained with, which is that of {}",
                config.ent_token, markers.label, config.class_token_index, config.model_name
            );
            return Err(Error::tokenizer(folder, problem));
        }
        Ok(markers)
    }
}

/// The tokenizer of the model in `folder`, with the markers; `tokenizer` is another folder where that one has none.
///
/// # Errors
/// No tokenizer, or a damaged one.
pub(crate) fn open_tokenizer(config: &GlinerConfig, folder: &Path, tokenizer: &Path) -> Result<Tokenizer> {
    let opened = Tokenizer::from_folder(tokenizer).map_err(|error| match error {
        Error::Missing { path, message } if tokenizer == folder => {
            let name = &config.model_name;
            let advice = format!("many GLiNER folders have none; give that of {name}, with which training began");
            Error::missing(path, format!("{message}; {advice} (`--tokenizer`, `Gliner::with_tokenizer`)"))
        }
        other => other,
    })?;
    opened.with_special_tokens(&["[FLERT]", &config.ent_token, &config.sep_token])
}
