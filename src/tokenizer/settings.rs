//! The settings in the files beside a vocabulary: `tokenizer_config.json`, `special_tokens_map.json`,
//! `added_tokens.json`.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TruncationSide;
use crate::{Error, Result, text_file};

/// Greater lengths mean "no limit": Hugging Face's libraries write 10^30 then.
const NO_LENGTH: f64 = 1e20;

/// The settings of a folder; empty if it has none of the files.
#[derive(Default)]
pub(super) struct Settings {
    /// The folder, for error messages.
    folder: PathBuf,
    /// The keys of `tokenizer_config.json`, and those of `special_tokens_map.json` if that file is used.
    keys: Map<String, Value>,
    /// Added tokens, by id.
    pub(super) added: BTreeMap<u64, AddedToken>,
}

impl Settings {
    /// Reads the files as transformers does: if `tokenizer_config.json` has an `added_tokens_decoder`, it replaces the
    /// other two files, which older versions wrote.
    ///
    /// # Errors
    /// A file that is not JSON, or an entry that is no token.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut settings = Self {
            folder: folder.to_owned(),
            keys: read_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default(),
            added: BTreeMap::new(),
        };
        let named = read_object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        match settings.keys.remove("added_tokens_decoder").filter(|listed| !listed.is_null()) {
            Some(listed) => {
                let listed =
                    listed.as_object().ok_or_else(|| settings.wrong("added_tokens_decoder", &listed, "an object"))?;
                for (id, token) in listed {
                    let key = format!("added_tokens_decoder.{id}");
                    let number = id.parse().map_err(|_| settings.wrong(&key, id, "an id as key"))?;
                    let token = settings.token(&key, token)?;
                    settings.added.insert(number, token);
                }
                for (key, value) in named {
                    settings.keys.entry(key).or_insert(value);
                }
            }
            None => {
                settings.keys.extend(named);
                settings.added = settings.read_added_tokens()?;
            }
        }
        Ok(settings)
    }

    /// `added_tokens.json`: ids by token. Tokens that have a role are special.
    fn read_added_tokens(&self) -> Result<BTreeMap<u64, AddedToken>> {
        let path = self.folder.join("added_tokens.json");
        let listed = read_object(&path)?.unwrap_or_default();
        let mut special = self.extra()?;
        for role in ["pad_token", "cls_token", "sep_token", "unk_token", "mask_token", "bos_token", "eos_token"] {
            special.push(self.role(role, AddedToken::default())?);
        }
        let token = |(token, id): (&String, &Value)| match id.as_u64() {
            Some(id) => {
                let is_special = special.iter().any(|special| special.content == *token);
                Ok((id, AddedToken::from(token.clone(), is_special)))
            }
            None => {
                Err(Error::tokenizer(&path, format!("the id of the token {token:?} is {id}, expected a number from 0")))
            }
        };
        listed.iter().map(token).collect()
    }

    /// The token for a role such as `mask_token`: `default`, but with the spelling and the properties that the files
    /// give, if they give any.
    pub(super) fn role(&self, role: &str, default: AddedToken) -> Result<AddedToken> {
        let Some(value) = self.value(role) else { return Ok(default) };
        let token = self.token(role, value)?;
        Ok(if value.is_object() { token } else { AddedToken { content: token.content, ..default } })
    }

    /// Special tokens without a role.
    pub(super) fn extra(&self) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            match self.value(key) {
                None => {}
                Some(Value::Array(listed)) => {
                    for token in listed {
                        tokens.push(self.token(key, token)?.special(true));
                    }
                }
                // Roles with names of their own, which only one model has.
                Some(Value::Object(listed)) => {
                    for (name, token) in listed {
                        tokens.push(self.token(&format!("{key}.{name}"), token)?.special(true));
                    }
                }
                Some(other) => return Err(self.wrong(key, other, "a list of tokens")),
            }
        }
        Ok(tokens)
    }

    /// A key that is true or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"));
        self.value(key).map(flag).transpose()
    }

    /// The side on which a text that is too long loses tokens.
    pub(super) fn truncation_side(&self) -> Result<Option<TruncationSide>> {
        let side = |value: &Value| match value.as_str() {
            Some("left") => Ok(TruncationSide::Left),
            Some("right") => Ok(TruncationSide::Right),
            _ => Err(self.wrong("truncation_side", value, "\"left\" or \"right\"")),
        };
        self.value("truncation_side").map(side).transpose()
    }

    /// The most tokens of one input, special tokens included.
    pub(super) fn model_max_length(&self) -> Result<Option<usize>> {
        // The second name is that of transformers before version 2.
        let Some(value) = self.value("model_max_length").or(self.value("max_len")) else { return Ok(None) };
        match value.as_f64() {
            Some(length) if length > NO_LENGTH => Ok(None),
            Some(length) if length >= 1.0 && length.fract() == 0.0 => Ok(Some(length as usize)),
            _ if value == "Infinity" => Ok(None),
            _ => Err(self.wrong(
                "model_max_length",
                value,
                "a number of tokens from 1, or a very large one for no limit",
            )),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// Reads a token: its text, or an object with the text and properties.
    fn token(&self, key: &str, value: &Value) -> Result<AddedToken> {
        let Value::Object(properties) = value else {
            let text = value.as_str().filter(|text| !text.is_empty());
            return Ok(AddedToken::from(text.ok_or_else(|| self.wrong(key, value, "a token"))?, true));
        };
        let flag = |name: &str| match properties.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(&format!("{key}.{name}"), other, "true or false")),
        };
        let text = properties.get("content").and_then(Value::as_str).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| self.wrong(key, value, "a token with its text as `content`"))?;
        let special = flag("special")?.unwrap_or(!key.starts_with("added_tokens_decoder"));
        Ok(AddedToken::from(text, special)
            .single_word(flag("single_word")?.unwrap_or(false))
            .lstrip(flag("lstrip")?.unwrap_or(false))
            .rstrip(flag("rstrip")?.unwrap_or(false))
            .normalized(flag("normalized")?.unwrap_or(!special)))
    }

    fn wrong(&self, key: &str, value: impl Display, expected: &str) -> Error {
        let files = "tokenizer_config.json or special_tokens_map.json";
        Error::tokenizer(&self.folder, format!("`{key}` is {value} in {files}, expected {expected}"))
    }
}

/// The keys of a JSON file; none if there is no file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    path.is_file().then(|| text_file::read_json(path)).transpose()
}
