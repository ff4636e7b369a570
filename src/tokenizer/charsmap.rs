//! Normalisation as in SentencePiece: the precompiled character map of an spm.model, applied by longest match.
//!
//! The `tokenizers` crate applies such a map to whole grapheme clusters, by shortest match: it drops the accent of
//! "①́", leaves decomposed Hangul alone, and may panic on a damaged map. [`Normalizer`] is the crate's normaliser with
//! that one step replaced. It reads and writes the same tokenizer.json.
//!
//! Source of the format: sentencepiece, `normalizer.cc` (behaviour, not code): a length (little-endian `u32`), a Darts
//! double array of that many bytes whose keys are UTF-8, and NUL-terminated replacements. The values of the array are
//! positions in the replacements.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use tokenizers::{
    NormalizedString, NormalizerWrapper,
    normalizers::{Precompiled, Sequence},
};

/// Replacement rules for prefixes of a text.
#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Reads a map and checks that every rule leads to a replacement.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (length, rest) = bytes.split_first_chunk().ok_or("the character map ends within its length field")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, replacements) = rest
            .split_at_checked(length)
            .filter(|_| length > 0 && length.is_multiple_of(4))
            .ok_or_else(|| format!("the character map claims a trie of {length} of its {} bytes", rest.len()))?;
        let replacements =
            std::str::from_utf8(replacements).map_err(|_| "the character map's replacements are not valid UTF-8")?;
        let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes(unit.try_into().expect("four bytes")));
        let map = Self { units: units.collect(), replacements: replacements.to_owned() };
        map.check_rules()?;
        Ok(map)
    }

    /// Visits every node of the trie once and looks its replacement up.
    fn check_rules(&self) -> Result<(), String> {
        let mut seen = vec![false; self.units.len()];
        let mut nodes = vec![offset(self.units[0])];
        while let Some(node) = nodes.pop() {
            for byte in 1..=255 {
                let Some(unit) = self.child(node, byte) else { continue };
                let child = node ^ usize::from(byte);
                if std::mem::replace(&mut seen[child], true) {
                    continue;
                }
                let next = child ^ offset(unit);
                if has_value(unit) && self.replacement(next).is_none() {
                    return Err("a rule of the character map points outside its replacements".into());
                }
                nodes.push(next);
            }
        }
        Ok(())
    }

    fn child(&self, node: usize, byte: u8) -> Option<u32> {
        // A unit with bit 31 set is a value, not a child, whatever its low byte is.
        self.units.get(node ^ usize::from(byte)).copied().filter(|unit| unit & (1 << 31 | 0xff) == u32::from(byte))
    }

    fn replacement(&self, value_node: usize) -> Option<&str> {
        let start = self.units.get(value_node)? & !(1 << 31);
        let (replacement, _) = self.replacements.get(start as usize..)?.split_once('\0')?;
        Some(replacement)
    }

    /// The longest prefix that a rule replaces: its length in bytes, and the replacement.
    fn longest_rule(&self, text: &str) -> Option<(usize, &str)> {
        let mut node = offset(self.units[0]);
        let mut longest = None;
        for (index, byte) in text.bytes().enumerate() {
            let Some(unit) = self.child(node, byte) else { break };
            node = node ^ usize::from(byte) ^ offset(unit);
            if has_value(unit) && text.is_char_boundary(index + 1) {
                longest = self.replacement(node).map(|replacement| (index + 1, replacement)).or(longest);
            }
        }
        longest
    }

    fn normalize(&self, normalized: &mut NormalizedString) {
        // `NormalizedString::transform` wants a number for each new character: 1 if it was inserted, 0 if it replaces
        // one, or minus the number of further characters removed with it. Characters removed before the first new one
        // are counted separately.
        let mut changes: Vec<(char, isize)> = Vec::with_capacity(normalized.get().len());
        let mut removed_in_front = 0;
        let mut modified = false;
        let mut rest = normalized.get();
        while let Some(first) = rest.chars().next() {
            let Some((length, replacement)) = self.longest_rule(rest) else {
                changes.push((first, 0));
                rest = &rest[first.len_utf8()..];
                continue;
            };
            modified = true;
            let mut replaced = rest[..length].chars().count() as isize;
            for character in replacement.chars() {
                changes.push((character, isize::from(replaced <= 0)));
                replaced -= 1;
            }
            if replaced > 0 {
                match changes.last_mut() {
                    Some((_, change)) => *change -= replaced,
                    None => removed_in_front += replaced as usize,
                }
            }
            rest = &rest[length..];
        }
        if modified {
            normalized.transform(changes, removed_in_front);
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let length = self.units.len() as u32 * 4;
        let trie = self.units.iter().flat_map(|unit| unit.to_le_bytes());
        length.to_le_bytes().into_iter().chain(trie).chain(self.replacements.bytes()).collect()
    }
}

/// The distance from a unit to its children (Darts double array).
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

/// Whether a rule ends at this unit.
fn has_value(unit: u32) -> bool {
    unit & (1 << 8) != 0
}

/// A sequence of normalisation steps.
#[derive(Debug, Clone)]
pub(super) struct Normalizer(pub(super) Vec<Step>);

/// One normalisation step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A SentencePiece character map.
    Charsmap(Charsmap),
    /// Any other normaliser.
    Other(NormalizerWrapper),
}

impl tokenizers::Normalizer for Normalizer {
    fn normalize(&self, normalized: &mut NormalizedString) -> tokenizers::Result<()> {
        for step in &self.0 {
            match step {
                Step::Charsmap(map) => map.normalize(normalized),
                Step::Other(normalizer) => normalizer.normalize(normalized)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Normalizer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let steps = self.0.iter().map(|step| match step {
            Step::Charsmap(map) => Precompiled::from(&map.to_bytes()).map(NormalizerWrapper::Precompiled),
            Step::Other(normalizer) => Ok(normalizer.clone()),
        });
        let steps = steps.collect::<Result<_, _>>().map_err(serde::ser::Error::custom)?;
        NormalizerWrapper::Sequence(Sequence::new(steps)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Normalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut steps = Vec::new();
        collect_steps(Value::deserialize(deserializer)?, &mut steps).map_err(D::Error::custom)?;
        Ok(Self(steps))
    }
}

/// Flattens (nested) sequences.
fn collect_steps(mut normalizer: Value, steps: &mut Vec<Step>) -> Result<(), String> {
    match normalizer["type"].as_str() {
        Some("Sequence") => {
            let Value::Array(children) = normalizer["normalizers"].take() else {
                return Err("a normalizer of type `Sequence` has no list `normalizers`".into());
            };
            children.into_iter().try_for_each(|child| collect_steps(child, steps))
        }
        Some("Precompiled") => {
            let text = normalizer["precompiled_charsmap"].as_str().ok_or("`precompiled_charsmap` is not a string")?;
            let bytes =
                STANDARD.decode(text).map_err(|error| format!("`precompiled_charsmap` is not base64: {error}"))?;
            steps.push(Step::Charsmap(Charsmap::parse(&bytes)?));
            Ok(())
        }
        _ => {
            steps.push(Step::Other(serde_json::from_value(normalizer).map_err(|error| error.to_string())?));
            Ok(())
        }
    }
}
