//! Tokenizers of every published DeBERTa and RoBERTa folder: `tokenizer.json`, SentencePiece, byte-level BPE.
//!
//! [`Tokenizer::from_folder`] finds the files, [`Tokenizer::encode`] makes [`Encoding`]s, and
//! [`Batch::collate`](crate::batch::Batch::collate) pads them for the model.
//!
//! ```
//! use deberta_burn::tokenizer::{Batch, EncodeOptions, Padding, Text, Tokenizer};
//!
//! # fn main() -> deberta_burn::Result<()> {
//! let tokenizer = Tokenizer::from_folder("models/deberta-tiny")?;
//! let texts = [Text::from("a single text"), Text::from(("a question", "and its context"))];
//! let encodings = tokenizer.encode(&texts, &EncodeOptions::default())?;
//! let batch = Batch::collate(&encodings, tokenizer.pad_id(), Padding::Longest)?;
//! assert_eq!(batch.rows, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Equality with sentencepiece
//! An `spm.model` gives the same ids as the sentencepiece package. This was measured with DeBERTa-v3's own file on
//! 175,134 lines: each assigned character up to U+2FFFF, twenty thousand random mixtures of scripts, emoji, combining
//! marks, control characters and spaces, novels, and film reviews. The exceptions are:
//! - If a text contains the name of a special token, such as `[MASK]`, it is read as that token; sentencepiece splits
//!   it into pieces. The same is true of a model's user-defined pieces, and a new word starts after such a piece.
//! - If two splits are equally probable, because they have the same pieces in another order ("aaaa…"), the rounding of
//!   32-bit sums over the whole line decides in sentencepiece; here the first split is taken. That concerns 75 lines,
//!   all of random letters or one repeated syllable.
//! - A text that contains the name of a byte piece (`<0x0A>`) is split as in sentencepiece, unless the vocabulary lacks
//!   `<`.
//!
//! If a folder has a `tokenizer.json`, that file counts, with what it says about spaces and unknown text. The usual one
//! for DeBERTa-v3 turns byte fallback off: text outside the vocabulary becomes `[UNK]` instead of bytes, which explains
//! nearly all differences. It also strips U+0085, keeps a space token for a zero-width character at the end, and treats
//! a literal "▁" as a space. For the 15,606 lines of novels and reviews, both files give the ids of sentencepiece.
//!
//! With both files, character maps are applied as in sentencepiece. Hugging Face's library applies the same map by
//! grapheme cluster. With the `tokenizer.json` that [`Tokenizer::save`] writes, it gives other ids for 824 of 28,477
//! constructed lines (some combining marks and half-width kana vanish or are not joined) and for none of 13,605 lines
//! of natural text.

mod added;
mod byte_level;
mod charsmap;
mod encode;
mod protobuf;
#[doc(hidden)]
pub mod sentencepiece;
mod settings;
mod special;
mod tokenizer_json;
pub mod train;

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
    processors::{roberta::RobertaProcessing, template::TemplateProcessing},
};

use self::{
    added::{MissingMask, add_tokens},
    charsmap::Normalizer,
    sentencepiece::SentencePieceModel,
    settings::Settings,
    special::{SpecialIds, SpecialTokens},
    tokenizer_json::{check_model, check_templates, keep_offsets, set_prefix_space},
};
use crate::{
    Error, Result,
    foreign::{self, Part},
    replacement::Replacement,
    text_file,
};

pub(crate) use self::encode::default_stride;
pub use self::encode::{EncodeOptions, Text, Truncation, TruncationSide};
pub use crate::batch::{Batch, Encoding, Padding, Truncated};

/// The wrapped tokenizer. It never holds a post-processor, truncation or padding: those follow in
/// [`Tokenizer::encode`].
type Inner = TokenizerImpl<ModelWrapper, Normalizer, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer with its special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    post_processor: PostProcessorWrapper,
    tokens: SpecialTokens,
    ids: SpecialIds,
    byte_level: bool,
    truncation_side: TruncationSide,
    model_max_length: Option<usize>,
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.json`, otherwise `spm.model`, otherwise `vocab.json` and
    /// `merges.txt` (`model_type` in `config.json` says whether they are DeBERTa's or RoBERTa's).
    ///
    /// As in transformers, `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` add more: further
    /// tokens and how they are found, special tokens, `add_prefix_space`, `split_special_tokens`, `truncation_side` and
    /// `model_max_length`.
    ///
    /// # Errors
    /// None of these files, files that are damaged or of another kind, a vocabulary without the special tokens.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::missing(folder, format!("tokenizer {}: no such folder", folder.display())));
        }
        let settings = Settings::read(folder)?;
        let has = |name: &str| folder.join(name).is_file();
        let tokenizer = if has("tokenizer.json") {
            Self::from_tokenizer_json(&folder.join("tokenizer.json"), &settings)
        } else if has("spm.model") {
            Self::from_sentencepiece_folder(folder, &settings)
        } else if has("vocab.json") && has("merges.txt") {
            Self::from_byte_level(folder, &settings)
        } else {
            let looked_for = "tokenizer.json, spm.model, and vocab.json with merges.txt";
            Err(foreign::not_found(folder, Part::Tokenizer, "no tokenizer found", looked_for))
        }?;
        tokenizer.with_settings(&settings)
    }

    /// Applies the settings that do not depend on the kind of vocabulary.
    fn with_settings(mut self, settings: &Settings) -> Result<Self> {
        self.inner.set_encode_special_tokens(settings.flag("split_special_tokens")?.unwrap_or(false));
        self.truncation_side = settings.truncation_side()?.unwrap_or(self.truncation_side);
        self.model_max_length = settings.model_max_length()?;
        Ok(self)
    }

    fn from_tokenizer_json(path: &Path, settings: &Settings) -> Result<Self> {
        let mut json: Value = text_file::read_json(path)?;
        let broken = |problem: String| Error::tokenizer(path, problem);
        check_model(&json["model"]).map_err(broken)?;
        check_templates(&json["post_processor"]).map_err(broken)?;
        keep_offsets(&mut json["post_processor"]);
        let post_processor: Option<PostProcessorWrapper> = serde_json::from_value(json["post_processor"].take())
            .map_err(|error| broken(format!("its post_processor cannot be read: {error}")))?;
        let post_processor = post_processor
            .filter(|processor| processor.added_tokens(false) > 0)
            .ok_or_else(|| broken("its post_processor adds no special tokens, but the model expects them".into()))?;
        if let Some(prefix_space) = settings.flag("add_prefix_space")? {
            set_prefix_space(&mut json["pre_tokenizer"], prefix_space);
        }
        // The caller decides about lengths, see `EncodeOptions` and `Batch`.
        let truncation_side = match json["truncation"].take()["direction"].as_str() {
            Some("Left") => TruncationSide::Left,
            _ => TruncationSide::Right,
        };
        json["padding"].take();
        let mut inner: Inner = serde_json::from_value(json).map_err(|error| broken(error.to_string()))?;
        let spelling = match inner.token_to_id("[CLS]") {
            Some(_) => SpecialTokens::deberta(),
            None => SpecialTokens::roberta(),
        };
        let tokens = spelling.or_as_configured(settings)?;
        add_tokens(&mut inner, path, settings, &tokens, MissingMask::Stays)?;
        let tokenizer = Self::new(path, inner, tokens, |_, _| Ok(post_processor))?;
        Ok(Self { truncation_side, ..tokenizer })
    }

    /// Builds the tokenizer of a SentencePiece model alone: DeBERTa's special tokens, `[MASK]` behind the pieces.
    ///
    /// # Errors
    /// A vocabulary without `[PAD]`, `[CLS]`, `[SEP]` and `[UNK]`.
    pub fn from_sentencepiece(model: SentencePieceModel) -> Result<Self> {
        Self::with_pieces(model, &Settings::default())
    }

    fn from_sentencepiece_folder(folder: &Path, settings: &Settings) -> Result<Self> {
        if settings.flag("split_by_punct")? == Some(true) {
            let problem = "tokenizer_config.json sets split_by_punct, which is not supported";
            return Err(Error::unsupported(format!("tokenizer {}", folder.display()), problem));
        }
        let path = folder.join("spm.model");
        Self::with_pieces(SentencePieceModel::parse(&path, &text_file::read_bytes(&path)?)?, settings)
    }

    fn with_pieces(model: SentencePieceModel, settings: &Settings) -> Result<Self> {
        let path = model.path().to_owned();
        let tokens = SpecialTokens::deberta().or_as_configured(settings)?;
        let lower_case = settings.flag("do_lower_case")?.unwrap_or(false);
        let inner = model.into_tokenizer(lower_case);
        let mut inner = inner.map_err(|error| Error::tokenizer(&path, error.to_string()))?;
        add_tokens(&mut inner, &path, settings, &tokens, MissingMask::IsAppended)?;
        Self::new(&path, inner, tokens, deberta_template)
    }

    fn from_byte_level(folder: &Path, settings: &Settings) -> Result<Self> {
        let path = folder.join("config.json");
        let config: Option<Value> = path.is_file().then(|| text_file::read_json(&path)).transpose()?;
        let model_type = config.unwrap_or_default()["model_type"].clone();
        let spelling = match model_type.as_str() {
            Some("deberta") => SpecialTokens::deberta(),
            Some("roberta") => SpecialTokens::roberta(),
            _ => {
                let problem = format!(
                    "vocab.json and merges.txt need a config.json whose model_type is \"deberta\" or \"roberta\", found \
                     {model_type}"
                );
                return Err(Error::tokenizer(folder, problem));
            }
        };
        let tokens = spelling.with_space_in_mask().or_as_configured(settings)?;
        let mut inner = byte_level::read(folder, settings.flag("add_prefix_space")?.unwrap_or(false))?;
        let path = folder.join("vocab.json");
        add_tokens(&mut inner, &path, settings, &tokens, MissingMask::IsAppended)?;
        let post_processor = if model_type == "roberta" { roberta_template } else { deberta_template };
        Self::new(&path, inner, tokens, post_processor)
    }

    /// Adds special tokens behind the vocabulary, in this order; those that it already has stay where they are.
    ///
    /// # Errors
    /// A token that the vocabulary cannot take.
    pub(crate) fn with_special_tokens(mut self, tokens: &[&str]) -> Result<Self> {
        let tokens: Vec<_> = tokens.iter().map(|&token| AddedToken::from(token, true)).collect();
        let added = self.inner.add_special_tokens(tokens);
        added.map_err(|error| Error::input("special tokens", format!("they cannot be added: {error}")))?;
        Ok(self)
    }

    /// Puts the parts together; `source` is for error messages.
    fn new(
        source: &Path,
        inner: Inner,
        tokens: SpecialTokens,
        post_processor: impl FnOnce(&SpecialTokens, &SpecialIds) -> Result<PostProcessorWrapper, String>,
    ) -> Result<Self> {
        let ids = tokens.ids(source, |token| inner.token_to_id(token))?;
        let post_processor = post_processor(&tokens, &ids).map_err(|problem| Error::tokenizer(source, problem))?;
        let byte_level = byte_level::steps(&inner).next().is_some();
        let truncation_side = TruncationSide::default();
        Ok(Self { inner, post_processor, tokens, ids, byte_level, truncation_side, model_max_length: None })
    }

    /// The side on which a text that is too long loses tokens.
    pub fn truncation_side(&self) -> TruncationSide {
        self.truncation_side
    }

    /// Sets the side on which a text that is too long loses tokens, in the place of the folder's settings.
    pub fn set_truncation_side(&mut self, side: TruncationSide) {
        self.truncation_side = side;
    }

    /// The largest number of tokens of one input, special tokens included, according to the folder's settings
    /// (`model_max_length`); none if they set no limit. [`encode`](Self::encode) does not use it: its options decide.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// Id of the padding token.
    pub fn pad_id(&self) -> u32 {
        self.ids.pad
    }

    /// Id of the token in front of every input (`[CLS]`). Its hidden state represents the whole input.
    pub fn cls_id(&self) -> u32 {
        self.ids.cls
    }

    /// Id of the token after every text.
    pub fn sep_id(&self) -> u32 {
        self.ids.sep
    }

    /// Id of the token for text that the vocabulary does not cover.
    pub fn unk_id(&self) -> u32 {
        self.ids.unk
    }

    /// Id of the mask token, which stands for a word to be guessed.
    pub fn mask_id(&self) -> u32 {
        self.ids.mask
    }

    /// The token with this id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of this token, as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether this is a special token: `[PAD]`, `[MASK]` and the like, and what else the vocabulary marks as special.
    pub fn is_special(&self, id: u32) -> bool {
        let SpecialIds { pad, cls, sep, unk, mask } = self.ids;
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        [pad, cls, sep, unk, mask].contains(&id) || added.get(&id).is_some_and(|token| token.special)
    }

    /// Number of tokens; their ids are `0..vocab_size()`. The model's embedding table may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Turns tokens into a text. Changes made by normalisation are not undone.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.token(id).is_none()) {
            let problem = format!("it is not in the vocabulary of {} tokens", self.vocab_size());
            return Err(Error::input(format!("token id {id}"), problem));
        }
        let decoded = self.inner.decode(ids, skip_special);
        decoded.map_err(|error| Error::input("token ids", format!("they do not decode: {error}")))
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder, replacing older ones; Hugging Face's
    /// `AutoTokenizer` reads them.
    ///
    /// # Errors
    /// A folder that cannot be created or written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "clean_up_tokenization_spaces": false,
            "pad_token": self.tokens.pad.content,
            "cls_token": self.tokens.cls.content,
            "sep_token": self.tokens.sep.content,
            "unk_token": self.tokens.unk.content,
            "mask_token": self.tokens.mask.content,
        });
        if self.truncation_side == TruncationSide::Left {
            config["truncation_side"] = "left".into();
        }
        if self.inner.get_encode_special_tokens() {
            config["split_special_tokens"] = true.into();
        }
        // transformers before version 5 would turn it off, whatever tokenizer.json says.
        if byte_level::steps(&self.inner).any(|step| step.add_prefix_space) {
            config["add_prefix_space"] = true.into();
        }
        if let Some(length) = self.model_max_length {
            config["model_max_length"] = length.into();
        }
        let config = serde_json::to_vec_pretty(&config).map_err(Error::json("tokenizer"))?;
        let tokenizer = Replacement::of(folder.join("tokenizer.json"), &self.to_json()?)?;
        let config = Replacement::of(folder.join("tokenizer_config.json"), &config)?;
        tokenizer.commit()?;
        config.commit()
    }

    /// SHA-256 of the `tokenizer.json` that [`save`](Self::save) writes, in hexadecimal: equal tokenizers have equal digests.
    ///
    /// # Errors
    /// A tokenizer that cannot be written as JSON.
    pub fn digest(&self) -> Result<String> {
        Ok(format!("{:x}", Sha256::digest(self.to_json()?)))
    }

    /// The content of `tokenizer.json`; equal tokenizers give equal bytes.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        let mut inner = self.inner.clone();
        inner.with_post_processor(Some(self.post_processor.clone()));
        serde_json::to_vec(&inner).map_err(Error::json("tokenizer"))
    }
}

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`; the second text and the `[SEP]` after it have type 1.
fn deberta_template(tokens: &SpecialTokens, ids: &SpecialIds) -> Result<PostProcessorWrapper, String> {
    let (cls, sep) = (&tokens.cls.content, &tokens.sep.content);
    let special = vec![(cls.clone(), ids.cls), (sep.clone(), ids.sep)];
    TemplateProcessing::builder()
        .try_single(vec![format!("{cls}:0"), "$A:0".into(), format!("{sep}:0")])
        .and_then(|template| {
            let pair = [format!("{cls}:0"), "$A:0".into(), format!("{sep}:0"), "$B:1".into(), format!("{sep}:1")];
            template.try_pair(pair.to_vec())
        })
        .map_err(|error| error.to_string())?
        .special_tokens(special)
        .build()
        .map(Into::into)
        .map_err(|error| error.to_string())
}

/// `<s> A </s>` and `<s> A </s></s> B </s>`, all of type 0.
fn roberta_template(tokens: &SpecialTokens, ids: &SpecialIds) -> Result<PostProcessorWrapper, String> {
    let template = RobertaProcessing::new((tokens.sep.content.clone(), ids.sep), (tokens.cls.content.clone(), ids.cls));
    Ok(template.add_prefix_space(false).trim_offsets(false).into())
}
