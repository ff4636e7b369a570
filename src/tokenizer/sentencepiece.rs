//! SentencePiece model files (`spm.model`: DeBERTa v2, v3, mDeBERTa) as `tokenizers` tokenizers.
//!
//! Source of the format: sentencepiece, `sentencepiece_model.proto`; of the behaviour: its `normalizer.cc` and
//! `unigram_model.cc`.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use tokenizers::{
    AddedToken, NormalizerWrapper, Result as TokenizersResult,
    decoders::{self, byte_fallback::ByteFallback},
    models::unigram::Unigram,
    normalizers::{
        Lowercase, Prepend, Replace,
        replace::ReplacePattern::{Regex, String as Literal},
    },
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

use super::{
    Inner,
    charsmap::{Charsmap, Normalizer, Step},
    protobuf::{Fields, Value},
};
use crate::{Error, Result};

/// The character that SentencePiece uses for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// The kind of a piece (`SentencePiece.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One entry of the vocabulary.
#[derive(Debug, Clone)]
struct Piece {
    text: String,
    score: f32,
    kind: Kind,
}

/// The parts of an `spm.model` file that encoding needs.
#[derive(Debug, Clone)]
pub struct SentencePieceModel {
    path: PathBuf,
    pieces: Vec<Piece>,
    unknown: usize,
    byte_fallback: bool,
    charsmap: Option<Charsmap>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    /// Reads a model from a file's bytes; `path` is for error messages.
    ///
    /// # Errors
    /// Bytes that are no SentencePiece model, an empty vocabulary, a model that is not of the unigram type.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        Self::read(path, bytes).map_err(|problem| {
            let advice = "take the file that the checkpoint was published with";
            Error::tokenizer(path, format!("not a SentencePiece unigram model that can be used: {problem}; {advice}"))
        })
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            path: path.to_owned(),
            pieces: Vec::new(),
            unknown: 0,
            byte_fallback: false,
            charsmap: None,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, piece) => model.pieces.push(Piece::read(piece.bytes("pieces")?)?),
                (2, trainer) => model.read_trainer(trainer.bytes("trainer_spec")?)?,
                (3, normalizer) => model.read_normalizer(normalizer.bytes("normalizer_spec")?)?,
                _ => {}
            }
        }
        model.check_vocabulary()?;
        Ok(model)
    }

    fn read_trainer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::of(message) {
            match field? {
                (3, kind) => {
                    let kind = kind.integer("model_type")?;
                    if kind != 1 {
                        return Err(format!("its model_type is {kind}, expected 1 (unigram)"));
                    }
                }
                (35, flag) => self.byte_fallback = flag.integer("byte_fallback")? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::of(message) {
            match field? {
                (2, Value::Bytes([])) => {}
                (2, map) => self.charsmap = Some(Charsmap::parse(map.bytes("precompiled_charsmap")?)?),
                (3, flag) => self.add_dummy_prefix = flag.integer("add_dummy_prefix")? != 0,
                (4, flag) => self.remove_extra_whitespaces = flag.integer("remove_extra_whitespaces")? != 0,
                (5, flag) if flag.integer("escape_whitespaces")? == 0 => {
                    return Err("it leaves spaces unescaped, which no DeBERTa model does".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_vocabulary(&mut self) -> Result<(), String> {
        if self.pieces.is_empty() {
            return Err("its vocabulary is empty".into());
        }
        let mut seen = HashSet::with_capacity(self.pieces.len());
        if let Some(twice) = self.pieces.iter().find(|piece| !seen.insert(piece.text.as_str())) {
            return Err(format!("its vocabulary holds {:?} twice", twice.text));
        }
        let mut unknown = self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Unknown);
        match (unknown.next(), unknown.next()) {
            (Some((index, _)), None) => self.unknown = index,
            (None, _) => return Err("its vocabulary has no piece for unknown text".into()),
            (Some(_), Some(_)) => return Err("its vocabulary has several pieces for unknown text".into()),
        }
        if self.byte_fallback && self.pieces.iter().filter(|piece| piece.kind == Kind::Byte).count() != 256 {
            return Err("it asks for byte_fallback, but has no piece for each of the 256 bytes".into());
        }
        Ok(())
    }

    /// The file that the model was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Builds the tokenizer without a post-processor.
    pub(super) fn into_tokenizer(self, lower_case: bool) -> TokenizersResult<Inner> {
        let normalizer = self.normalizer(lower_case)?;
        let added = self.pieces.iter().filter_map(|piece| match piece.kind {
            Kind::Control | Kind::Unknown => Some(AddedToken::from(piece.text.clone(), true)),
            Kind::UserDefined => Some(AddedToken::from(piece.text.clone(), false).normalized(false)),
            Kind::Normal | Kind::Unused | Kind::Byte => None,
        });
        let added: Vec<_> = added.collect();
        let unreachable = self.unreachable_score();
        let vocabulary = self.pieces.into_iter().map(|piece| match piece.kind {
            Kind::Byte | Kind::Unused => (piece.text, unreachable),
            _ => (piece.text, f64::from(piece.score)),
        });
        let vocabulary = vocabulary.collect();
        assemble(Unigram::from(vocabulary, Some(self.unknown), self.byte_fallback)?, normalizer, added)
    }

    /// A score so low that any split into normal pieces is better. In sentencepiece, byte pieces and unused pieces
    /// match no text, but in `tokenizers` every piece does.
    fn unreachable_score(&self) -> f64 {
        let lowest = self.pieces.iter().map(|piece| f64::from(piece.score)).fold(0.0, f64::min);
        let longest = self.pieces.iter().map(|piece| piece.text.chars().count()).max().unwrap_or(0);
        (lowest - 1.0) * (longest + 1) as f64
    }

    /// The character map, then the treatment of spaces.
    fn normalizer(&self, lower_case: bool) -> TokenizersResult<Normalizer> {
        let mut steps = Vec::new();
        if lower_case {
            steps.push(Step::Other(Lowercase.into()));
        }
        steps.extend(self.charsmap.clone().map(Step::Charsmap));
        steps.extend(escape_spaces(self.remove_extra_whitespaces, self.add_dummy_prefix)?);
        Ok(Normalizer(steps))
    }
}

/// The treatment of spaces in `normalizer.cc`: remove superfluous ones, replace the others by [`SPACE`], put one in
/// front.
pub(super) fn escape_spaces(remove_extra: bool, prefix: bool) -> TokenizersResult<Vec<Step>> {
    let mut steps: Vec<NormalizerWrapper> = Vec::new();
    if remove_extra {
        steps.push(Replace::new(Regex(" {2,}".into()), " ")?.into());
        steps.push(Replace::new(Regex(format!("^ |[ {SPACE}]+$")), "")?.into());
    }
    steps.push(Replace::new(Literal(" ".into()), SPACE)?.into());
    if prefix {
        steps.push(Prepend::new(SPACE.into()).into());
    }
    Ok(steps.into_iter().map(Step::Other).collect())
}

/// Puts a tokenizer of pieces together, without a post-processor.
pub(super) fn assemble(model: Unigram, normalizer: Normalizer, added: Vec<AddedToken>) -> TokenizersResult<Inner> {
    let words = Metaspace::new('\u{2581}', PrependScheme::Never, true);
    let spaces = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let decoder = decoders::sequence::Sequence::new(vec![ByteFallback::new().into(), spaces.into()]);
    let mut tokenizer = Inner::new(model.into());
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(words)).with_decoder(Some(decoder));
    tokenizer.add_tokens(added)?;
    Ok(tokenizer)
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: Kind::Normal };
        for field in Fields::of(message) {
            match field? {
                (1, text) => piece.text = text.text("piece")?.to_owned(),
                (2, score) => piece.score = score.float("score")?,
                (3, kind) => {
                    piece.kind = match kind.integer("type")? {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        other => return Err(format!("a piece has the type {other}, expected 1 to 6")),
                    }
                }
                _ => {}
            }
        }
        match piece {
            _ if piece.text.is_empty() => Err("a piece of its vocabulary is empty".into()),
            _ if !piece.score.is_finite() => Err(format!("the piece {:?} has the score {}", piece.text, piece.score)),
            piece => Ok(piece),
        }
    }
}
