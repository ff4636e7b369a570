//! Sentences with a tag for each word, from CoNLL columns and JSON lines.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::{
    LabelSet,
    lines::{is_jsonl, json_lines, no_rows, read_text},
};
use crate::{Error, Result};

/// The columns of a CoNLL file that hold words and tags, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WordColumns {
    /// The column of the words.
    pub word: usize,
    /// The column of the tags; if none, the last column.
    pub tag: Option<usize>,
}

/// A sentence of tagged words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// Their tags in the IOB2 scheme, one for each word: `B-` begins every entity, `I-` continues it, `O` is outside.
    pub tags: Vec<String>,
    /// The line that the sentence starts on, from 1.
    pub line: usize,
}

/// Reads tagged sentences, in the file's order.
///
/// A `.jsonl` file has one `{"tokens": ["…"], "tags": ["…"]}` on each line. Every other file is read as CoNLL columns:
/// one word on each line, a blank line between sentences. If the first row has a tab, single tabs separate the columns,
/// and a word may contain spaces; otherwise white space separates them. `-DOCSTART-` lines are skipped, and so are
/// comments. A line is a comment if it starts with `#` and does not have the form of a row; `#` may also be a word.
///
/// Tags may be written in IOB1, IOB2, BIOES or BILOU and are returned in IOB2. The entities are those that conlleval
/// finds: an `I-` that does not continue an entity of its type begins a new one.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or has no sentence; a line has too few columns, or not as many as the line
/// before; the lists of tags and words differ in length; a tag is of another scheme.
pub fn read_sentences(path: impl AsRef<Path>, columns: WordColumns) -> Result<Vec<Sentence>> {
    let path = path.as_ref();
    let expected = "at least one sentence of tagged words";
    let text = read_text(path, expected)?;
    let sentences = if is_jsonl(path) { read_jsonl(path, &text) } else { read_columns(path, &text, columns) }?;
    if sentences.is_empty() {
        return Err(no_rows(path, expected));
    }
    Ok(sentences)
}

/// The labels for tagging with these entity types. If all tags are among a checkpoint's labels, `known`, and these are tags of IOB2,
/// the labels are those, in the same order. Otherwise they are `O`, then `B-` and `I-` of each type in alphabetical order, even if
/// only one of the two occurs.
///
/// # Errors
/// No sentence has an entity; `path` is their file.
pub fn tag_labels(sentences: &[Sentence], known: &[String], path: impl AsRef<Path>) -> Result<LabelSet> {
    let tags: BTreeSet<&str> = sentences.iter().flat_map(|sentence| &sentence.tags).map(String::as_str).collect();
    let kinds: BTreeSet<&str> = tags.iter().filter_map(|tag| tag.split_once('-')).map(|(_, kind)| kind).collect();
    if kinds.is_empty() {
        let problem = "every tag in it is `O`, expected entities to learn from: check which column holds the tags";
        return Err(Error::file(path, problem));
    }
    let is_iob =
        |label: &String| matches!(label.split_once('-').map_or(label.as_str(), |(tag, _)| tag), "O" | "B" | "I");
    if known.iter().all(is_iob) && tags.iter().all(|tag| known.iter().any(|label| label == tag)) {
        return LabelSet::new(known.to_vec());
    }
    let entities = kinds.iter().flat_map(|kind| [format!("B-{kind}"), format!("I-{kind}")]);
    LabelSet::new(std::iter::once("O".to_owned()).chain(entities).collect())
}

/// The indices of each sentence's tags; `path` is the sentences' file.
///
/// # Errors
/// A tag that is not among the labels.
pub fn tag_indices(sentences: &[Sentence], labels: &LabelSet, path: impl AsRef<Path>) -> Result<Vec<Vec<usize>>> {
    let indices =
        |sentence: &Sentence| sentence.tags.iter().map(|tag| labels.find(tag, path.as_ref(), sentence.line)).collect();
    sentences.iter().map(indices).collect()
}

fn read_columns(path: &Path, text: &str, columns: WordColumns) -> Result<Vec<Sentence>> {
    let layout = Layout::of(text, columns);
    let mut sentences = Vec::new();
    let mut width = None;
    let mut open: Option<SentenceReader> = None;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        if ends_sentence(line) {
            sentences.extend(open.take().map(|reader| reader.sentence));
            continue;
        }
        if layout.is_comment(line) {
            continue;
        }
        let fields = layout.separator.fields(line);
        let count = fields.len();
        let Some((word, tag)) = columns.of(&fields) else {
            let problem = format!("its number of columns is {count}, expected columns for a word and its tag");
            return Err(Error::line(path, line_number, problem));
        };
        if *width.get_or_insert(count) != count {
            let problem = format!("its number of columns is {count}, expected {} as above", width.unwrap_or_default());
            return Err(Error::line(path, line_number, problem));
        }
        if word.is_empty() {
            return Err(Error::line(path, line_number, "its word is blank, expected a word and its tag"));
        }
        open.get_or_insert_with(|| SentenceReader::new(line_number)).push(path, line_number, word, tag)?;
    }
    sentences.extend(open.map(|reader| reader.sentence));
    Ok(sentences)
}

/// Whether this is a blank line, or one between documents.
fn ends_sentence(line: &str) -> bool {
    matches!(line.split_ascii_whitespace().next(), None | Some("-DOCSTART-"))
}

impl WordColumns {
    /// The word and the tag among a line's fields, if it has both.
    fn of<'a>(self, fields: &[&'a str]) -> Option<(&'a str, &'a str)> {
        let tag = self.tag.unwrap_or(fields.len().checked_sub(1)?);
        Some((*fields.get(self.word)?, *fields.get(tag)?)).filter(|_| tag != self.word)
    }
}

/// What separates columns.
#[derive(Clone, Copy)]
enum Separator {
    Tabs,
    Spaces,
}

impl Separator {
    fn fields(self, line: &str) -> Vec<&str> {
        // ASCII only: a no-break space may be part of a word.
        match self {
            Self::Tabs => line.trim_ascii_end().split('\t').map(str::trim_ascii).collect(),
            Self::Spaces => line.split_ascii_whitespace().collect(),
        }
    }
}

/// How the rows of a file are written.
struct Layout {
    separator: Separator,
    columns: WordColumns,
    /// The number of columns of the first row.
    width: usize,
}

impl Layout {
    fn of(text: &str, columns: WordColumns) -> Self {
        let rows = || text.lines().filter(|line| !ends_sentence(line) && !line.starts_with('#'));
        let widths = |separator: Separator| rows().map(move |line| separator.fields(line).len());
        let equal = |separator| widths(separator).is_sorted_by(|left, right| left == right);
        let tabs = rows().next().is_some_and(|line| line.contains('\t'));
        // Tabs may also align columns (one tab here, several there), or replace some of the spaces.
        let separator = match tabs && (equal(Separator::Tabs) || !equal(Separator::Spaces)) {
            true => Separator::Tabs,
            false => Separator::Spaces,
        };
        Self { separator, columns, width: widths(separator).next().unwrap_or_default() }
    }

    /// Whether this is a comment: it starts with `#` and does not look like a row, nor like one of the word `#` with a wrong tag.
    fn is_comment(&self, line: &str) -> bool {
        let fields = self.separator.fields(line);
        let is_row = || {
            let tag = self.columns.of(&fields).map(|(_, tag)| tag);
            tag.is_some_and(|tag| Tag::parse(tag).is_some()) && (self.width == 0 || fields.len() == self.width)
        };
        let of_the_word = line.starts_with("#\t") && fields.len() == self.width;
        line.starts_with('#') && !of_the_word && !is_row()
    }
}

#[derive(Deserialize)]
struct TaggedTokens {
    tokens: Vec<String>,
    tags: Vec<String>,
}

fn read_jsonl(path: &Path, text: &str) -> Result<Vec<Sentence>> {
    json_lines(path, text)
        .map(|row| {
            let (line, TaggedTokens { tokens, tags }) = row?;
            if tokens.is_empty() || tokens.len() != tags.len() {
                let problem = format!(
                    "it has {} tokens and {} tags, expected at least one token and as many tags as tokens",
                    tokens.len(),
                    tags.len()
                );
                return Err(Error::line(path, line, problem));
            }
            let mut reader = SentenceReader::new(line);
            for (word, tag) in tokens.iter().zip(&tags) {
                reader.push(path, line, word, tag)?;
            }
            Ok(reader.sentence)
        })
        .collect()
}

/// What a tag says about a word and its entity.
struct Tag<'a> {
    /// Whether an entity begins here, whatever comes before.
    begins: bool,
    /// Whether the entity ends here, whatever comes after.
    ends: bool,
    /// The entity's type; none outside.
    kind: Option<&'a str>,
}

impl<'a> Tag<'a> {
    /// The meaning of a tag; none if it belongs to no known scheme.
    fn parse(tag: &'a str) -> Option<Self> {
        let (begins, ends, kind) = match tag.split_once('-') {
            None if tag == "O" => return Some(Self { begins: false, ends: true, kind: None }),
            Some(("B", kind)) => (true, false, kind),
            Some(("I", kind)) => (false, false, kind),
            Some(("E" | "L", kind)) => (false, true, kind),
            Some(("S" | "U", kind)) => (true, true, kind),
            _ => return None,
        };
        (!kind.is_empty()).then_some(Self { begins, ends, kind: Some(kind) })
    }
}

/// Takes the words of a sentence one by one and brings their tags to IOB2.
struct SentenceReader {
    sentence: Sentence,
    /// The type of the entity that the next word may continue.
    open: Option<String>,
}

impl SentenceReader {
    fn new(line: usize) -> Self {
        Self { sentence: Sentence { words: Vec::new(), tags: Vec::new(), line }, open: None }
    }

    /// `path` and `line` are where the tag was read, for the error.
    fn push(&mut self, path: &Path, line: usize, word: &str, tag: &str) -> Result<()> {
        let Some(Tag { begins, ends, kind }) = Tag::parse(tag) else {
            let problem = format!(
                "tag `{tag}` is of no known scheme, expected `O`, or a type after `B-` or `I-` (IOB) or after \
                 `B-`, `I-`, `E-` or `S-` (BIOES): check which column holds the tags"
            );
            return Err(Error::line(path, line, problem));
        };
        self.sentence.words.push(word.to_owned());
        self.sentence.tags.push(match kind {
            None => "O".to_owned(),
            Some(kind) if begins || self.open.as_deref() != Some(kind) => format!("B-{kind}"),
            Some(kind) => format!("I-{kind}"),
        });
        self.open = kind.filter(|_| !ends).map(str::to_owned);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
