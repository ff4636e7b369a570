//! From labelled words to entities: the B-, I-, O tags of named entity data and their variants.

use std::fmt;

use serde::Serialize;

use super::runner::characters;

/// A span of the text with its type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entity {
    /// The type: the label without its `B-` or `I-`.
    pub label: String,
    /// The span's text.
    pub text: String,
    /// Its first character in the text, counted in Unicode scalar values.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
    /// The mean probability of its words' labels; where spans are scored, the span's own.
    pub score: f32,
}

impl fmt::Display for Entity {
    /// First character, end, type, score and text, separated by tabs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, text, start, end, score } = self;
        write!(formatter, "{start}\t{end}\t{label}\t{score:.4}\t{text}")
    }
}

/// A word with the label that the model gave it.
#[derive(Clone, Debug)]
pub(super) struct LabelledWord<'a> {
    pub start: usize,
    pub end: usize,
    pub label: &'a str,
    pub score: f32,
}

/// The position in an entity that a label names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TagPrefix {
    /// `B-`: the first word.
    First,
    /// `I-`, and labels without a prefix: a further word. If there is no entity to continue, the first word.
    Inside,
    /// `E-`, `L-`: the last word.
    Last,
    /// `S-`, `U-`: the only word.
    Single,
}

/// The position and type that a label names; none for `O`.
fn parse(label: &str) -> Option<(TagPrefix, &str)> {
    if label == "O" {
        return None;
    }
    let parsed = match label.split_once('-') {
        Some(("B", kind)) => (TagPrefix::First, kind),
        Some(("I", kind)) => (TagPrefix::Inside, kind),
        Some(("E" | "L", kind)) => (TagPrefix::Last, kind),
        Some(("S" | "U", kind)) => (TagPrefix::Single, kind),
        _ => (TagPrefix::Inside, label),
    };
    Some(parsed)
}

/// Joins neighbouring words into entities. As in the CoNLL evaluation, a continuation that does not fit the word before
/// it starts an entity of its own.
pub(super) fn entities(text: &str, words: &[LabelledWord<'_>]) -> Vec<Entity> {
    let mut spans: Vec<(&str, Vec<&LabelledWord<'_>>)> = Vec::new();
    let mut open = false;
    for word in words {
        let Some((prefix, kind)) = parse(word.label) else {
            open = false;
            continue;
        };
        match spans.last_mut().filter(|(last, _)| open && *last == kind) {
            Some((_, span)) if matches!(prefix, TagPrefix::Inside | TagPrefix::Last) => span.push(word),
            _ => spans.push((kind, vec![word])),
        }
        open = matches!(prefix, TagPrefix::First | TagPrefix::Inside);
    }
    let entity = |(kind, words): (&str, Vec<&LabelledWord<'_>>)| {
        let (start, end) = (words[0].start, words[words.len() - 1].end);
        Entity {
            label: kind.to_owned(),
            text: characters(text, start, end),
            start,
            end,
            score: words.iter().map(|word| word.score).sum::<f32>() / words.len() as f32,
        }
    };
    spans.into_iter().map(entity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One-letter words "a b c …" with these labels, as "type:text" each.
    fn found(labels: &[&str]) -> Vec<String> {
        let text: Vec<String> = ('a'..='z').take(labels.len()).map(String::from).collect();
        let words: Vec<_> = labels
            .iter()
            .enumerate()
            .map(|(i, label)| LabelledWord { start: 2 * i, end: 2 * i + 1, label, score: 0.5 })
            .collect();
        entities(&text.join(" "), &words).iter().map(|entity| format!("{}:{}", entity.label, entity.text)).collect()
    }

    #[test]
    fn every_scheme_of_labels() {
        assert_eq!(found(&["B-PER", "I-PER", "O", "B-LOC"]), ["PER:a b", "LOC:d"]);
        assert_eq!(found(&["B-PER", "B-PER", "I-LOC"]), ["PER:a", "PER:b", "LOC:c"]);
        assert_eq!(found(&["I-PER", "I-PER", "I-LOC", "O", "I-LOC"]), ["PER:a b", "LOC:c", "LOC:e"]);
        assert_eq!(found(&["S-PER", "I-PER", "B-ORG", "E-ORG", "E-ORG"]), ["PER:a", "PER:b", "ORG:c d", "ORG:e"]);
        assert_eq!(found(&["B-ORG", "L-ORG", "U-ORG"]), ["ORG:a b", "ORG:c"]);
        assert_eq!(found(&["PER", "PER", "O", "LOC"]), ["PER:a b", "LOC:d"]);
        assert_eq!(found(&["O", "O"]), [""; 0]);
    }

    #[test]
    fn scores_are_means_and_offsets_count_characters() {
        let words = [
            LabelledWord { start: 2, end: 8, label: "B-LOC", score: 0.8 },
            LabelledWord { start: 9, end: 11, label: "I-LOC", score: 0.6 },
        ];
        let [entity] = &entities("« Zürich 🏔️ »", &words)[..] else { panic!("one entity") };
        assert_eq!((entity.start, entity.end, entity.text.as_str()), (2, 11, "Zürich 🏔️"));
        assert!((entity.score - 0.7).abs() < 1e-6);
    }
}
