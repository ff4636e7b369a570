//! Special tokens: how a folder spells them, and which ids they have.

use std::path::Path;

use tokenizers::AddedToken;

use super::settings::Settings;
use crate::{Error, Result};

/// The special tokens, and how each is searched for in a text.
#[derive(Debug, Clone)]
pub(super) struct SpecialTokens {
    pub(super) pad: AddedToken,
    pub(super) cls: AddedToken,
    pub(super) sep: AddedToken,
    pub(super) unk: AddedToken,
    pub(super) mask: AddedToken,
}

impl SpecialTokens {
    fn named(names: [&str; 5]) -> Self {
        let [pad, cls, sep, unk, mask] = names.map(|name| AddedToken::from(name, true));
        Self { pad, cls, sep, unk, mask }
    }

    pub(super) fn deberta() -> Self {
        Self::named(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    }

    pub(super) fn roberta() -> Self {
        Self::named(["<pad>", "<s>", "</s>", "<unk>", "<mask>"])
    }

    /// The same for a vocabulary whose words include the space in front of them: the mask stands for a word, so it
    /// includes that space too.
    pub(super) fn with_space_in_mask(self) -> Self {
        Self { mask: self.mask.lstrip(true), ..self }
    }

    /// The same, changed by what the folder's settings say.
    pub(super) fn or_as_configured(self, settings: &Settings) -> Result<Self> {
        Ok(Self {
            pad: settings.role("pad_token", self.pad)?,
            cls: settings.role("cls_token", self.cls)?,
            sep: settings.role("sep_token", self.sep)?,
            unk: settings.role("unk_token", self.unk)?,
            mask: settings.role("mask_token", self.mask)?,
        })
    }

    /// All of them, in the order in which missing ones are added to a vocabulary.
    pub(super) fn all(&self) -> [AddedToken; 5] {
        [&self.unk, &self.sep, &self.pad, &self.cls, &self.mask].map(AddedToken::clone)
    }

    /// Looks the ids up; `source` is for the error message.
    pub(super) fn ids(&self, source: &Path, id: impl Fn(&str) -> Option<u32>) -> Result<SpecialIds> {
        let id = |role, token: &AddedToken| {
            id(&token.content).ok_or_else(|| {
                let problem = format!(
                    "the vocabulary has no token {:?} for {role}; if it is spelled otherwise, say so in \
                     tokenizer_config.json",
                    token.content
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
