//! Tokenizers of every published DeBERTa and RoBERTa folder: `tokenizer.json`, SentencePiece, byte-level BPE.
//!
//! [`Tokenizer::from_folder`] finds the files, [`Tokenizer::encode`] makes [`Encoding`](crate::batch::Encoding)s, and
//! [`Batch::collate`](crate::batch::Batch::collate) pads them for the model.
//!
//! ```
//! use deberta_burn::{batch::{Batch, Padding}, tokenizer::{EncodeOptions, Text, Tokenizer}};
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
//! An `spm.model` gives the ids of the sentencepiece package, measured on DeBERTa-v3's own file and 175,134 lines (each
//! assigned character up to U+2FFFF, twenty thousand random mixtures of scripts, emoji, combining marks, control
//! characters and spaces, novels, film reviews), but for these cases:
//! - Special tokens that a text spells out, such as `[MASK]`, are read as these tokens; sentencepiece spells them in
//!   pieces. The same goes for a model's user-defined pieces, after which a word starts anew.
//! - Where two splits are equally probable, because they hold the same pieces in another order ("aaaa…"), sentencepiece
//!   follows the rounding of its 32-bit sums over the whole line, and we take the first: 75 lines, all of them random
//!   letters or one syllable repeated.
//! - A text that spells a byte piece (`<0x0A>`) is split as sentencepiece does it, unless the vocabulary lacks `<`.
//!
//! A `tokenizer.json` rules where it is there, with what it says about spaces and unknown text. DeBERTa-v3's as found
//! in the wild turns byte fallback off, so text outside the vocabulary becomes `[UNK]` instead of bytes (nearly all
//! differences); it strips U+0085, keeps a space token for a zero-width character at the end, and treats a literal "▁"
//! as a space. The 15,606 lines of novels and reviews give sentencepiece's ids by either file.
//!
//! Character maps are applied as sentencepiece does it, in both. Hugging Face's library applies the same map by
//! grapheme cluster: given the `tokenizer.json` that [`Tokenizer::save`] writes, it gives other ids for 824 of 28,477
//! contrived lines (some combining marks and half-width kana vanish or stay apart) and for none of 13,605 lines of
//! natural text.

mod byte_level;
mod charsmap;
mod encode;
mod protobuf;
pub mod sentencepiece;
mod special;
pub mod train;

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
    models::bpe::Merges,
    processors::{roberta::RobertaProcessing, template::TemplateProcessing},
};

use self::{
    charsmap::Normalizer,
    sentencepiece::SentencePieceModel,
    special::{SpecialIds, SpecialTokens, TokenizerConfig, read_json},
};
use crate::{Error, Result, replacement::Replacement};

pub use self::encode::{EncodeOptions, Text, Truncation, default_stride};

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
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.json` where there is one, otherwise `spm.model`,
    /// otherwise `vocab.json` and `merges.txt` (whose kind `config.json` tells by its `model_type`).
    ///
    /// # Errors
    /// None of these files, files that are damaged or of another kind, a vocabulary without the special tokens.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::tokenizer(folder, "no such folder"));
        }
        let config = TokenizerConfig::read(folder)?;
        let has = |name: &str| folder.join(name).is_file();
        if has("tokenizer.json") {
            Self::from_tokenizer_json(&folder.join("tokenizer.json"), &config)
        } else if has("spm.model") {
            Self::from_sentencepiece_folder(folder, &config)
        } else if has("vocab.json") && has("merges.txt") {
            Self::from_byte_level(folder, &config)
        } else {
            Err(Error::tokenizer(
                folder,
                "no tokenizer found; looked for tokenizer.json, spm.model, and vocab.json with merges.txt",
            ))
        }
    }

    fn from_tokenizer_json(path: &Path, config: &TokenizerConfig) -> Result<Self> {
        let mut json = read_json(path)?.unwrap_or_default();
        let broken = |problem: String| Error::tokenizer(path, problem);
        check_model(&json["model"]).map_err(broken)?;
        keep_offsets(&mut json["post_processor"]);
        let post_processor: Option<PostProcessorWrapper> = serde_json::from_value(json["post_processor"].take())
            .map_err(|error| broken(format!("its post_processor cannot be read: {error}")))?;
        let post_processor = post_processor
            .filter(|processor| processor.added_tokens(false) > 0)
            .ok_or_else(|| broken("its post_processor adds no special tokens, but the model expects them".into()))?;
        // Length is the caller's business, see `EncodeOptions` and `Batch`.
        json["truncation"].take();
        json["padding"].take();
        let inner: Inner = serde_json::from_value(json).map_err(|error| broken(error.to_string()))?;
        let spelling = match inner.token_to_id("[CLS]") {
            Some(_) => SpecialTokens::deberta(),
            None => SpecialTokens::roberta(),
        };
        Self::new(path, inner, spelling.or_as_configured(config), |_, _| Ok(post_processor))
    }

    /// Builds the tokenizer of a SentencePiece model alone: DeBERTa's special tokens, `[MASK]` behind the pieces.
    ///
    /// # Errors
    /// A vocabulary without `[PAD]`, `[CLS]`, `[SEP]` and `[UNK]`.
    pub fn from_sentencepiece(model: SentencePieceModel) -> Result<Self> {
        let tokens = SpecialTokens::deberta();
        let mask = tokens.mask.clone();
        Self::with_pieces(model, tokens, vec![mask], false)
    }

    fn from_sentencepiece_folder(folder: &Path, config: &TokenizerConfig) -> Result<Self> {
        if config.is_set("split_by_punct") {
            return Err(Error::tokenizer(folder, "tokenizer_config.json sets split_by_punct, which is not supported"));
        }
        let path = folder.join("spm.model");
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let model = SentencePieceModel::parse(&path, &bytes)?;
        let tokens = SpecialTokens::deberta().or_as_configured(config);
        let added = added_tokens(folder, config, &model, &tokens.mask)?;
        Self::with_pieces(model, tokens, added, config.is_set("do_lower_case"))
    }

    fn with_pieces(
        model: SentencePieceModel,
        tokens: SpecialTokens,
        added: Vec<String>,
        lower_case: bool,
    ) -> Result<Self> {
        let path = model.path().to_owned();
        let added = added.into_iter().map(|token| AddedToken::from(token, true));
        let inner = model.into_tokenizer(lower_case).and_then(|mut inner| inner.add_tokens(added).map(|_| inner));
        let inner = inner.map_err(|error| Error::tokenizer(&path, error.to_string()))?;
        Self::new(&path, inner, tokens, deberta_template)
    }

    fn from_byte_level(folder: &Path, config: &TokenizerConfig) -> Result<Self> {
        let model_config = folder.join("config.json");
        let model_type = read_json(&model_config)?.unwrap_or_default()["model_type"].clone();
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
        let tokens = spelling.or_as_configured(config);
        let inner = byte_level::read(folder, &tokens)?;
        let post_processor = if model_type == "roberta" { roberta_template } else { deberta_template };
        Self::new(&folder.join("vocab.json"), inner, tokens, post_processor)
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
        let byte_level = match inner.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(steps)) => {
                steps.as_ref().iter().any(|step| matches!(step, PreTokenizerWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        Ok(Self { inner, post_processor, tokens, ids, byte_level })
    }

    /// Id of the token that fills up the rows of a batch.
    pub fn pad_id(&self) -> u32 {
        self.ids.pad
    }

    /// Id of the token in front of every input, whose hidden state stands for the whole.
    pub fn cls_id(&self) -> u32 {
        self.ids.cls
    }

    /// Id of the token after every text.
    pub fn sep_id(&self) -> u32 {
        self.ids.sep
    }

    /// Id of the token for text that the vocabulary cannot spell.
    pub fn unk_id(&self) -> u32 {
        self.ids.unk
    }

    /// Id of the token that stands for a word to be guessed.
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

    /// Whether this token stands for no text of its own: `[PAD]`, `[MASK]` and their like, and whatever else the
    /// vocabulary marks as special.
    pub fn is_special(&self, id: u32) -> bool {
        let SpecialIds { pad, cls, sep, unk, mask } = self.ids;
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        [pad, cls, sep, unk, mask].contains(&id) || added.get(&id).is_some_and(|token| token.special)
    }

    /// Number of tokens; their ids are `0..vocab_size()`. The model's embedding table may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Puts tokens together to a text. What normalisation changed stays changed.
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
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "clean_up_tokenization_spaces": false,
            "pad_token": self.tokens.pad,
            "cls_token": self.tokens.cls,
            "sep_token": self.tokens.sep,
            "unk_token": self.tokens.unk,
            "mask_token": self.tokens.mask,
        });
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

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, the second text and its end of type 1.
fn deberta_template(tokens: &SpecialTokens, ids: &SpecialIds) -> Result<PostProcessorWrapper, String> {
    let (cls, sep) = (&tokens.cls, &tokens.sep);
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
    let template = RobertaProcessing::new((tokens.sep.clone(), ids.sep), (tokens.cls.clone(), ids.cls));
    Ok(template.add_prefix_space(false).trim_offsets(false).into())
}

/// Keeps a post-processor from trimming offsets a second time: [`Tokenizer::encode`] did it, for every kind alike.
fn keep_offsets(post_processor: &mut Value) {
    if let Some(trim) = post_processor.get_mut("trim_offsets") {
        *trim = false.into();
    }
    let steps = post_processor.get_mut("processors").and_then(Value::as_array_mut);
    steps.into_iter().flatten().for_each(keep_offsets);
}

/// Published vocabularies add a handful; an id further out than this is a mistake.
const MOST_ADDED: u64 = 10_000;

/// The tokens behind the pieces of an spm.model, in the order of their ids: `[MASK]`, and whatever else
/// `added_tokens.json` or `tokenizer_config.json` list. Ids that they leave out become `[unused…]`.
fn added_tokens(
    folder: &Path,
    config: &TokenizerConfig,
    model: &SentencePieceModel,
    mask: &str,
) -> Result<Vec<String>> {
    let path = folder.join("added_tokens.json");
    let listed: BTreeMap<String, u64> = match read_json(&path)? {
        Some(listed) => serde_json::from_value(listed).map_err(Error::json(path.display()))?,
        None => BTreeMap::new(),
    };
    let listed = listed.iter().map(|(token, &id)| (id, token.as_str()));
    let mut added: BTreeMap<u64, &str> = listed.chain(config.added_tokens()).collect();
    if !added.values().any(|token| *token == mask) {
        let behind = added.keys().last().map_or(0, |last| last.saturating_add(1));
        added.insert(behind.max(model.len() as u64), mask);
    }
    let conflict = added.iter().find(|&(&id, token)| model.piece(id as usize).is_some_and(|piece| piece != *token));
    if let Some((id, token)) = conflict {
        let problem = format!("the added token {token:?} has the id {id}, which belongs to another piece of spm.model");
        return Err(Error::tokenizer(folder, problem));
    }
    let first = model.len() as u64;
    let end = added.keys().last().map_or(first, |last| last.saturating_add(1));
    if end > first + MOST_ADDED {
        let problem = format!("an added token has the id {}, far beyond the {first} pieces of spm.model", end - 1);
        return Err(Error::tokenizer(folder, problem));
    }
    Ok((first..end)
        .map(|id| added.get(&id).map_or_else(|| format!("[unused{id}]"), |token| (*token).to_owned()))
        .collect())
}

/// Checks what `tokenizers` takes for granted in a tokenizer.json's model.
fn check_model(model: &Value) -> Result<(), String> {
    let vocabulary = &model["vocab"];
    let empty = vocabulary.as_object().map(|map| map.is_empty()).or(vocabulary.as_array().map(|list| list.is_empty()));
    match empty {
        None => return Err("it has no vocabulary (`model.vocab`)".into()),
        Some(true) => return Err("its vocabulary (`model.vocab`) is empty".into()),
        Some(false) => {}
    }
    let Some(merges) = model["merges"].as_array() else { return Ok(()) };
    let merges: Option<Merges> = merges
        .iter()
        .map(|merge| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
            pair => Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())),
        })
        .collect();
    let merges = merges.ok_or("one of its merges (`model.merges`) is not a pair of tokens")?;
    byte_level::check_merges(&merges, |token| vocabulary.get(token).is_some())
}
