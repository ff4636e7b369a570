//! Special tokens: how a folder spells them, and which ids they have.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Error, Result};

/// A folder's `tokenizer_config.json`, as far as it is needed; empty where there is no such file.
pub(super) struct TokenizerConfig(Value);

impl TokenizerConfig {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        read_json(&folder.join("tokenizer_config.json")).map(|value| Self(value.unwrap_or_default()))
    }

    pub(super) fn is_set(&self, flag: &str) -> bool {
        self.0[flag] == true
    }

    /// A token is either its text, or an object with that text as `content`.
    fn token(&self, key: &str) -> Option<&str> {
        self.0[key].as_str().or_else(|| self.0[key]["content"].as_str())
    }

    /// Tokens that `added_tokens_decoder` lists, with their ids.
    pub(super) fn added_tokens(&self) -> impl Iterator<Item = (u64, &str)> {
        let listed = self.0["added_tokens_decoder"].as_object();
        listed.into_iter().flatten().filter_map(|(id, token)| Some((id.parse().ok()?, token["content"].as_str()?)))
    }
}

/// Reads a JSON file, or nothing where there is none.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map(Some).map_err(Error::json(path.display()))
}

/// How the special tokens are spelled.
#[derive(Debug, Clone)]
pub(super) struct SpecialTokens {
    pub(super) pad: String,
    pub(super) cls: String,
    pub(super) sep: String,
    pub(super) unk: String,
    pub(super) mask: String,
}

impl SpecialTokens {
    fn named([pad, cls, sep, unk, mask]: [&str; 5]) -> Self {
        let [pad, cls, sep, unk, mask] = [pad, cls, sep, unk, mask].map(str::to_owned);
        Self { pad, cls, sep, unk, mask }
    }

    pub(super) fn deberta() -> Self {
        Self::named(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    }

    pub(super) fn roberta() -> Self {
        Self::named(["<pad>", "<s>", "</s>", "<unk>", "<mask>"])
    }

    /// The same, but spelled as `tokenizer_config.json` says where it says so.
    pub(super) fn or_as_configured(self, config: &TokenizerConfig) -> Self {
        let token = |key, default| config.token(key).map_or(default, str::to_owned);
        Self {
            pad: token("pad_token", self.pad),
            cls: token("cls_token", self.cls),
            sep: token("sep_token", self.sep),
            unk: token("unk_token", self.unk),
            mask: token("mask_token", self.mask),
        }
    }

    /// Looks the ids up; `source` is for the error message.
    pub(super) fn ids(&self, source: &Path, id: impl Fn(&str) -> Option<u32>) -> Result<SpecialIds> {
        let id = |role, token: &str| {
            id(token).ok_or_else(|| {
                let problem = format!(
                    "the vocabulary has no token {token:?} for {role}; if it is spelled otherwise, say so in \
                     tokenizer_config.json"
                );
                Error::tokenizer(source, problem)
            })
        };
        Ok(SpecialIds {
            pad: id("padding (`pad_token`)", &self.pad)?,
            cls: id("the start of a text (`cls_token`)", &self.cls)?,
            sep: id("the end of a text (`sep_token`)", &self.sep)?,
            unk: id("unknown text (`unk_token`)", &self.unk)?,
            mask: id("masked words (`mask_token`)", &self.mask)?,
        })
    }
}

/// The special tokens' ids.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpecialIds {
    pub(super) pad: u32,
    pub(super) cls: u32,
    pub(super) sep: u32,
    pub(super) unk: u32,
    pub(super) mask: u32,
}
