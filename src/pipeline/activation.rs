//! What a cross-encoder's folder makes of its one output, as sentence-transformers reads it
//! (`CrossEncoder.get_default_activation_fn`).

use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result, scores::sigmoid, text_file};

/// The activation over the one output of a cross-encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScoreActivation {
    Sigmoid,
    Identity,
}

impl ScoreActivation {
    /// The activation that a folder names: `activation_fn` in `config_sentence_transformers.json`, else
    /// `sentence_transformers.activation_fn` or, before version 4, `sbert_ce_default_activation_function` in `config.json`.
    /// A folder that names none has the sigmoid.
    ///
    /// # Errors
    /// A file that is not JSON, or an activation other than sigmoid and identity.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        for (file, keys) in [
            ("config_sentence_transformers.json", &["/activation_fn"][..]),
            ("config.json", &["/sentence_transformers/activation_fn", "/sbert_ce_default_activation_function"]),
        ] {
            let path = folder.join(file);
            if !path.exists() {
                continue;
            }
            let content = Value::Object(text_file::read_json::<Map<String, Value>>(&path)?);
            let mut named = keys.iter().filter_map(|key| Some((key, content.pointer(key)?)));
            if let Some((key, name)) = named.find(|(_, name)| !name.is_null()) {
                return Self::parse(name).ok_or_else(|| {
                    let problem = format!(
                        "`{}` is {name}, and only Sigmoid and Identity of torch.nn are supported",
                        key[1..].replace('/', ".")
                    );
                    Error::unsupported(path.display().to_string(), problem)
                });
            }
        }
        Ok(Self::Sigmoid)
    }

    /// The class at the end of a path such as `torch.nn.modules.activation.Sigmoid`.
    fn parse(name: &Value) -> Option<Self> {
        match name.as_str()?.strip_prefix("torch.nn.")?.rsplit('.').next()? {
            "Sigmoid" => Some(Self::Sigmoid),
            "Identity" => Some(Self::Identity),
            _ => None,
        }
    }

    /// The relevance of a raw score.
    pub fn apply(self, score: f32) -> f32 {
        match self {
            Self::Sigmoid => sigmoid(score),
            Self::Identity => score,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Identity => "identity",
        }
    }
}
