//! Sentences with a tag for each word, from CoNLL columns and JSON lines.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

use super::{
    LabelSet,
    lines::{at_line, is_jsonl, json_lines, no_rows, read_text},
};
use crate::{Error, Result};

/// The columns of a CoNLL file that hold words and tags, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WordColumns {
    /// The words'.
    pub word: usize,
    /// The tags'; none for the last one.
    pub tag: Option<usize>,
}

/// A sentence of tagged words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// Their tags in the IOB2 scheme, one a word: `B-` begins every entity, `I-` continues it, `O` is outside.
    pub tags: Vec<String>,
    /// The line that the sentence starts on, from 1.
    pub line: usize,
}

/// Reads tagged sentences, in the file's order.
///
/// A `.jsonl` file has one `{"tokens": ["…"], "tags": ["…"]}` a line. Every other file is read as CoNLL columns: a word
/// a line, a blank line between sentences. Where the first row has a tab, columns stand between single tabs, and a
/// word may hold spaces; otherwise they stand between white space. `-DOCSTART-` lines are skipped, and so are comments:
/// lines that start with `#` and are no row of the file, for `#` is a word like any other.
///
/// Tags may be written in IOB1, IOB2 or BIOES (also as BILOU) and come out in IOB2, with the entities that conlleval
/// sees: an `I-` that continues no entity of its type begins one.
///
/// # Errors
/// The file cannot be read, is not UTF-8 or has no sentence; a line has too few columns or another number than the line
/// before, a list of tags has another length than its list of words, or a tag is of another kind.
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

/// The labels for tagging with these entity types. If all tags are among those of a checkpoint, `known`, these are they, in
/// its order; otherwise `O`, then `B-` and `I-` of each type in alphabetical order, whether or not both occur.
///
/// # Errors
/// No sentence has an entity; `path` is their file.
pub fn tag_labels(sentences: &[Sentence], known: &[String], path: impl AsRef<Path>) -> Result<LabelSet> {
    let tags: BTreeSet<&str> = sentences.iter().flat_map(|sentence| &sentence.tags).map(String::as_str).collect();
    let kinds: BTreeSet<&str> = tags.iter().filter_map(|tag| tag.split_once('-')).map(|(_, kind)| kind).collect();
    if kinds.is_empty() {
        let problem = "every tag in it is `O`, expected entities to learn from: check which column holds the tags";
        return Err(Error::input(path.as_ref().display().to_string(), problem));
    }
    if tags.iter().all(|tag| known.iter().any(|label| label == tag)) {
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
        let place = at_line(path.display(), index + 1);
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
            return Err(Error::input(place, problem));
        };
        if *width.get_or_insert(count) != count {
            let problem = format!("its number of columns is {count}, expected {} as above", width.unwrap_or_default());
            return Err(Error::input(place, problem));
        }
        if word.is_empty() {
            return Err(Error::input(place, "its word is blank, expected a word and its tag"));
        }
        open.get_or_insert_with(|| SentenceReader::new(index + 1)).push(word, tag, place)?;
    }
    sentences.extend(open.map(|reader| reader.sentence));
    Ok(sentences)
}

/// Blank lines and those between documents.
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

/// What stands between columns.
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
    /// The number of columns, as the first row has it.
    width: usize,
}

impl Layout {
    fn of(text: &str, columns: WordColumns) -> Self {
        let rows = || text.lines().filter(|line| !ends_sentence(line) && !line.starts_with('#'));
        let widths = |separator: Separator| rows().map(move |line| separator.fields(line).len());
        let equal = |separator| widths(separator).is_sorted_by(|left, right| left == right);
        let tabs = rows().next().is_some_and(|line| line.contains('\t'));
        // Tabs may also line columns up, now one and now several of them, or stand for spaces.
        let separator = match tabs && (equal(Separator::Tabs) || !equal(Separator::Spaces)) {
            true => Separator::Tabs,
            false => Separator::Spaces,
        };
        Self { separator, columns, width: widths(separator).next().unwrap_or_default() }
    }

    /// A line that starts with `#`, and neither is a row nor was meant to be one.
    fn is_comment(&self, line: &str) -> bool {
        let fields = self.separator.fields(line);
        let is_row = || {
            let tag = self.columns.of(&fields).map(|(_, tag)| tag);
            tag.is_some_and(|tag| Tag::parse(tag).is_some()) && (self.width == 0 || fields.len() == self.width)
        };
        line.starts_with('#') && !line.starts_with("#\t") && !is_row()
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
                return Err(Error::input(at_line(path.display(), line), problem));
            }
            let mut reader = SentenceReader::new(line);
            for (word, tag) in tokens.iter().zip(&tags) {
                reader.push(word, tag, at_line(path.display(), line))?;
            }
            Ok(reader.sentence)
        })
        .collect()
}

/// What a tag says of its word.
struct Tag<'a> {
    /// Whether an entity begins, whatever is before it.
    begins: bool,
    /// Whether nothing after it continues an entity.
    ends: bool,
    /// The entity's type; none outside.
    kind: Option<&'a str>,
}

impl<'a> Tag<'a> {
    /// The meaning of a tag; none if it is of no known scheme.
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

    /// `place` is where the tag was read, for the error.
    fn push(&mut self, word: &str, tag: &str, place: String) -> Result<()> {
        let Some(Tag { begins, ends, kind }) = Tag::parse(tag) else {
            let problem = format!(
                "tag `{tag}` is of no known scheme, expected `O`, or a type after `B-` or `I-` (IOB) or after \
                 `B-`, `I-`, `E-` or `S-` (BIOES): check which column holds the tags"
            );
            return Err(Error::input(place, problem));
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
mod tests {
    use proptest::prelude::*;

    use super::{super::lines::file, *};

    fn read(name: &str, content: &str) -> Result<Vec<Sentence>> {
        let (_folder, path) = file(name, content);
        read_sentences(path, WordColumns::default())
    }

    /// The tags of one sentence, as they come out.
    fn iob2(tags: &str) -> String {
        let lines: Vec<String> = tags.split(' ').map(|tag| format!("w {tag}")).collect();
        read("a.conll", &lines.join("\n")).unwrap().remove(0).tags.join(" ")
    }

    #[test]
    fn columns_with_documents_and_comments() {
        let content = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\n# SYM I-NP O\r\n \t \r\n\nno\u{a0}break NN I-NP O\n";
        let sentences = read("a.txt", content).unwrap();
        assert_eq!(
            sentences,
            [
                Sentence { words: vec!["EU".into(), "#".into()], tags: vec!["B-ORG".into(), "O".into()], line: 3 },
                Sentence { words: vec!["no\u{a0}break".into()], tags: vec!["O".into()], line: 7 },
            ]
        );
        let (_folder, path) = file("a.txt", content);
        let sentences = read_sentences(path, WordColumns { word: 1, tag: Some(2) }).unwrap();
        assert_eq!((sentences[0].words.join(" "), sentences[0].tags.join(" ")), ("NNP SYM".into(), "B-NP I-NP".into()));
    }

    #[test]
    fn json_lines_give_the_same() {
        let json =
            "{\"tokens\": [\"EU\", \"law\"], \"tags\": [\"I-ORG\", \"O\"]}\n\n{\"tokens\": [\"a\"], \"tags\": [\"O\"]}";
        let lines: Vec<_> = read("a.jsonl", json).unwrap();
        let columns = read("a.conll", "EU I-ORG\nlaw O\n\na O").unwrap();
        assert_eq!(lines.iter().map(|sentence| sentence.line).collect::<Vec<_>>(), [1, 3]);
        let content = |sentences: Vec<Sentence>| -> Vec<_> {
            sentences.into_iter().map(|sentence| (sentence.words, sentence.tags)).collect()
        };
        assert_eq!(content(lines), content(columns));
    }

    #[test]
    fn every_scheme_becomes_iob2() {
        for (scheme, tags, expected) in [
            ("IOB1", "I-A I-A B-A O I-A I-B", "B-A I-A B-A O B-A B-B"),
            ("IOB2", "B-A I-A B-A O B-A B-B", "B-A I-A B-A O B-A B-B"),
            ("BIOES", "B-A E-A S-A O S-A S-B B-A I-A E-A", "B-A I-A B-A O B-A B-B B-A I-A I-A"),
            ("BILOU", "B-A L-A U-A O U-A", "B-A I-A B-A O B-A"),
            ("a type with a dash", "I-a-b I-a-b I-a", "B-a-b I-a-b B-a"),
            ("continuations of nothing", "E-A I-A S-A E-A", "B-A B-A B-A B-A"),
        ] {
            assert_eq!(iob2(tags), expected, "{scheme}");
        }
    }

    #[test]
    fn an_entity_does_not_continue_over_a_sentence_end() {
        let sentences = read("a.conll", "a B-A\n\nb I-A\n").unwrap();
        assert_eq!(sentences[1].tags, ["B-A"]);
    }

    #[test]
    fn labels_hold_both_tags_of_each_type() {
        let sentences = read("a.conll", "a I-PER\nb O\n\nc B-LOC\n").unwrap();
        let labels = tag_labels(&sentences, &[], "a.conll").unwrap();
        assert_eq!(labels.names(), ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]);
        assert_eq!(tag_indices(&sentences, &labels, "a.conll").unwrap(), [vec![3, 0], vec![1]]);

        let other = read("b.conll", "a O\n\nb I-ORG").unwrap();
        let error = tag_indices(&other, &labels, "b.conll").unwrap_err().to_string();
        assert!(error.starts_with("b.conll, line 3: label `B-ORG` is unknown, expected one of `O`, "), "{error}");
        let error = tag_labels(&read("a.conll", "a O").unwrap(), &[], "a.conll").unwrap_err().to_string();
        assert!(error.starts_with("a.conll: every tag in it is `O`"), "{error}");
    }

    #[test]
    fn a_checkpoints_labels_keep_their_order() {
        let sentences = read("a.conll", "a B-PER\nb O\n\nc B-LOC\n").unwrap();
        let names = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(|&label| label.to_owned()).collect();
            tag_labels(&sentences, &known, "a.conll").unwrap().names().to_vec()
        };
        let own = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];
        assert_eq!(names(&own), own);
        let sorted = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"];
        for other in [&["O", "B-PER", "I-PER"][..], &["LABEL_0", "LABEL_1"], &["PER", "LOC", "O"]] {
            assert_eq!(names(other), sorted, "{other:?}");
        }
    }

    #[test]
    fn words_between_tabs_may_hold_spaces() {
        let content = "\u{feff}# id 7\tdomain=en\r\nAda\tB-PER\r\npaid\tO\t\r\n10 000\tB-QTY\r\n#\tO\r\n\r\n\
                       # text = # euros\r\neuros\tO\r\n\r\n \r\n";
        let sentences = read("a.tsv", content).unwrap();
        assert_eq!(sentences.iter().map(|sentence| sentence.line).collect::<Vec<_>>(), [2, 8]);
        assert_eq!(sentences[0].words, ["Ada", "paid", "10 000", "#"]);
        assert_eq!(sentences[0].tags, ["B-PER", "O", "B-QTY", "O"]);
        // Tabs that line columns up, and tabs in some lines only.
        for content in ["Ada\tB-PER\nLovelace\t\tI-PER\n", "Ada\tB-PER\nLovelace I-PER\n"] {
            let columns = read("a.conll", content).unwrap();
            assert_eq!((&columns[0].words[1][..], &columns[0].tags[1][..]), ("Lovelace", "I-PER"));
        }
    }

    #[test]
    fn comments_are_no_words() {
        let content =
            "# newdoc\n# sent_id = 1 O\n# text = EU law # 1\nEU B-ORG\n# O\nlaw O\n# a comment\n\n# SYM\n\n#tag O\n";
        let words: Vec<_> = read("a.conll", content).unwrap().into_iter().map(|sentence| sentence.words).collect();
        assert_eq!(words, [vec!["EU", "#", "law"], vec!["#tag"]]);
    }

    #[test]
    fn bad_files_are_errors_that_say_where() {
        for (name, content, expected) in [
            ("a.conll", "\n\n", "a.conll: it holds no rows"),
            ("a.conll", "-DOCSTART- O\n\n", "a.conll: it holds no rows, expected at least one sentence"),
            (
                "a.conll",
                "a O\nb\n",
                "a.conll, line 2: its number of columns is 1, expected columns for a word and its tag",
            ),
            ("a.conll", "a NN O\nb O\n", "a.conll, line 2: its number of columns is 2, expected 3 as above"),
            ("a.conll", "a O\nb NN\n", "a.conll, line 2: tag `NN` is of no known scheme"),
            ("a.tsv", "a b\tO\nc\n", "a.tsv, line 2: its number of columns is 1, expected"),
            ("a.tsv", "a b\tO\nc d\te\tO\n", "a.tsv, line 2: its number of columns is 3, expected 2 as above"),
            ("a.tsv", "a b\tO\n \tO\n", "a.tsv, line 2: its word is blank"),
            ("a.tsv", "a b\tO\n#\tX\n", "a.tsv, line 2: tag `X` is of no known scheme"),
            ("a.conll", "# text\n", "a.conll: it holds no rows"),
            ("a.conll", "a B-\n", "a.conll, line 1: tag `B-` is of no known scheme"),
            ("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": []}", "a.jsonl, line 1: it has 1 tokens and 0 tags"),
            ("a.jsonl", "{\"tokens\": [], \"tags\": []}", "a.jsonl, line 1: it has 0 tokens and 0 tags"),
            ("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": [3]}", "a.jsonl, line 1 is not valid JSON"),
        ] {
            let error = read(name, content).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
    }

    /// Entities as (first, last, type), by the start and end rules of the CoNLL evaluation.
    fn entities(tags: &[&str]) -> Vec<(usize, usize, String)> {
        let part = |index: usize| tags.get(index).and_then(|tag| tag.split_once('-'));
        let mut found = Vec::new();
        for index in 0..tags.len() {
            let Some((place, kind)) = part(index) else { continue };
            let before = index.checked_sub(1).and_then(part);
            match before {
                Some((last, same)) if same == kind && "BI".contains(last) && "IE".contains(place) => {
                    let entity: &mut (usize, usize, String) = found.last_mut().unwrap();
                    entity.1 = index;
                }
                _ => found.push((index, index, kind.to_owned())),
            }
        }
        found
    }

    proptest! {
        /// Whatever the scheme, mixed even, the entities stay, and IOB2 stays as it is.
        #[test]
        fn entities_survive(tags in proptest::collection::vec("O|[BIES]-[AB]", 1..12)) {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            let converted = iob2(&tags.join(" "));
            prop_assert_eq!(entities(&tags), entities(&converted.split(' ').collect::<Vec<_>>()));
            prop_assert_eq!(iob2(&converted), converted);
        }
    }
}
