//! Entities in tagged sentences, found and counted as conlleval does, the evaluation program of the CoNLL-2000 and
//! CoNLL-2003 shared tasks (Tjong Kim Sang, version of 2004-01-26).

use std::collections::{BTreeMap, BTreeSet};

use super::{Counts, Metrics, Score, check_lengths, counts::ratio};
use crate::{Error, Result};

/// The counts of entities by their type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityCounts(BTreeMap<String, Counts>);

impl EntityCounts {
    /// Compares the entities of each text, as spans with their types. A predicted entity is correct if the same one is among
    /// the targets.
    ///
    /// # Errors
    /// No text, or another number of predictions.
    pub fn of_spans<S: Ord, K: AsRef<str> + Ord>(
        targets: &[BTreeSet<(S, K)>],
        predictions: &[BTreeSet<(S, K)>],
    ) -> Result<Self> {
        check_lengths("entity metrics", targets.len(), predictions.len())?;
        let mut counts = Self::default();
        for (targets, predictions) in targets.iter().zip(predictions) {
            counts.add(targets, predictions, |(_, kind)| kind.as_ref());
        }
        Ok(counts)
    }

    /// Counts the entities of one text.
    fn add<E: Ord>(&mut self, targets: &BTreeSet<E>, predictions: &BTreeSet<E>, kind: impl Fn(&E) -> &str) {
        for entity in targets.union(predictions) {
            let counts = self.0.entry(kind(entity).to_owned()).or_default();
            counts.add(targets.contains(entity), predictions.contains(entity));
        }
    }

    /// The entities of all types together.
    pub fn overall(&self) -> Counts {
        self.0.values().copied().sum()
    }

    /// The entities of each type that occurs in the targets or in the predictions.
    pub fn by_type(&self) -> &BTreeMap<String, Counts> {
        &self.0
    }

    /// Overall `f1`, `precision` and `recall`, and the F1 of each type as `f1_type`; the overall F1 selects.
    pub fn metrics(&self) -> Metrics {
        self.with_types(self.overall_metrics())
    }

    fn overall_metrics(&self) -> Metrics {
        let overall = self.overall();
        Metrics::new(Score::highest("f1", overall.f1()).with_baseline(0.0))
            .with(Score::highest("precision", overall.precision()))
            .with(Score::highest("recall", overall.recall()))
    }

    fn with_types(&self, metrics: Metrics) -> Metrics {
        let score = |(kind, counts): (&String, &Counts)| Score::highest(format!("f1_{kind}"), counts.f1());
        self.0.iter().map(score).fold(metrics, Metrics::with)
    }
}

/// Predictions of one IOB tag for each token.
///
/// A chunk starts at a `B-` tag, and at an `I-` tag that follows `O`, another type, or the start of the sentence; it
/// goes on through `I-` tags of the same type. So both IOB1 and IOB2 are understood, and an `I-` that continues nothing
/// is a chunk of its own. A predicted chunk is correct if start, end and type are those of a chunk in the targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Entities {
    counts: EntityCounts,
    tokens: usize,
    correct_tokens: usize,
    outside_tokens: usize,
}

impl Entities {
    /// Compares tags, sentence by sentence: `O`, `B-type` or `I-type`. Only the first hyphen separates; a type may
    /// contain others.
    ///
    /// # Errors
    /// No targets, another number of predicted sentences, another number of tags in one of them, or a tag of another
    /// scheme.
    pub fn new<S: AsRef<str>>(targets: &[Vec<S>], predictions: &[Vec<S>]) -> Result<Self> {
        check_lengths("entity metrics", targets.len(), predictions.len())?;
        let mut evaluation = Self { counts: EntityCounts::default(), tokens: 0, correct_tokens: 0, outside_tokens: 0 };
        for (sentence, (target, prediction)) in targets.iter().zip(predictions).enumerate() {
            if target.len() != prediction.len() {
                let problem =
                    format!("{} predicted tags for {} tokens, expected one each", prediction.len(), target.len());
                return Err(Error::input(format!("entity metrics, sentence {sentence}"), problem));
            }
            let (target, prediction) = (parse(sentence, target)?, parse(sentence, prediction)?);
            evaluation.tokens += target.len();
            evaluation.correct_tokens += target.iter().zip(&prediction).filter(|(left, right)| left == right).count();
            evaluation.outside_tokens += target.iter().filter(|tag| **tag == Tag::Outside).count();
            evaluation.counts.add(&chunks(&target), &chunks(&prediction), |chunk| chunk.kind);
        }
        Ok(evaluation)
    }

    /// The chunks of all types together. Their precision, recall and F1 are the overall figures of conlleval.
    pub fn overall(&self) -> Counts {
        self.counts.overall()
    }

    /// The chunks of each type that occurs in the targets or in the predictions.
    pub fn by_type(&self) -> &BTreeMap<String, Counts> {
        self.counts.by_type()
    }

    /// The share of tokens whose tag is right.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct_tokens, self.tokens)
    }

    /// The accuracy of a model that tags nothing: the share of `O` in the targets.
    pub fn outside_baseline(&self) -> f64 {
        ratio(self.outside_tokens, self.tokens)
    }

    /// Overall `f1`, `precision` and `recall`, `accuracy` beside that of a model that tags nothing (which finds no
    /// chunk), and the F1 of each type as `f1_type`; the overall F1 selects.
    pub fn metrics(&self) -> Metrics {
        let accuracy = Score::highest("accuracy", self.accuracy()).with_baseline(self.outside_baseline());
        self.counts.with_types(self.counts.overall_metrics().with(accuracy))
    }
}

/// An IOB tag; a bare `B` or `I` has the empty type.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tag<'a> {
    Outside,
    Begin(&'a str),
    Inside(&'a str),
}

/// The tags of one sentence.
fn parse<S: AsRef<str>>(sentence: usize, tags: &[S]) -> Result<Vec<Tag<'_>>> {
    let parse_one = |(token, tag)| {
        let tag = S::as_ref(tag);
        match tag.split_once('-').unwrap_or((tag, "")) {
            ("O", "") => Ok(Tag::Outside),
            ("B", kind) => Ok(Tag::Begin(kind)),
            ("I", kind) => Ok(Tag::Inside(kind)),
            _ => Err(Error::input(
                format!("entity metrics, sentence {sentence}, token {token}"),
                format!("the tag is `{tag}`, expected O, B-type or I-type: convert other schemes to IOB"),
            )),
        }
    };
    tags.iter().enumerate().map(parse_one).collect()
}

/// From a chunk's first token to the one after its last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chunk<'a> {
    start: usize,
    end: usize,
    kind: &'a str,
}

/// The chunks of a sentence.
fn chunks<'a>(tags: &[Tag<'a>]) -> BTreeSet<Chunk<'a>> {
    let mut chunks = BTreeSet::new();
    let mut open: Option<Chunk<'a>> = None;
    for (token, &tag) in tags.iter().enumerate() {
        match (tag, &mut open) {
            (Tag::Inside(kind), Some(chunk)) if chunk.kind == kind => chunk.end = token + 1,
            _ => {
                chunks.extend(open.take());
                if let Tag::Begin(kind) | Tag::Inside(kind) = tag {
                    open = Some(Chunk { start: token, end: token + 1, kind });
                }
            }
        }
    }
    chunks.extend(open);
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evaluate(sentences: &[(&str, &str)]) -> Result<Entities> {
        let split = |tags: &str| tags.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (targets, predictions): (Vec<_>, Vec<_>) =
            sentences.iter().map(|(target, prediction)| (split(target), split(prediction))).unzip();
        Entities::new(&targets, &predictions)
    }

    fn counts(targets: usize, predictions: usize, correct: usize) -> Counts {
        Counts { targets, predictions, correct }
    }

    // Expected values: the counts that conlleval.pl (version of 2004-01-26) prints or derives its percentages from; the
    // fractions from seqeval 1.2.2 in its default mode, which follows conlleval.
    #[test]
    fn equals_conlleval() {
        let evaluation = evaluate(&[
            ("B-PER I-PER O O B-LOC", "B-PER I-PER O B-LOC B-LOC"),
            ("I-ORG I-ORG O I-PER B-PER", "I-ORG O O I-PER I-PER"),
            ("O B-MISC I-MISC I-MISC", "O B-MISC I-MISC I-LOC"),
            ("B-LOC I-LOC", "I-LOC I-LOC"),
            ("I-LOC O", "I-LOC O"),
            ("B-PER B-PER I-PER O B-ORG-X", "B-PER I-PER I-PER O I-ORG-X"),
            ("O O O", "O I-DATE O"),
        ])
        .unwrap();
        assert_eq!(evaluation.overall(), counts(11, 12, 5));
        let expected = [
            ("DATE", counts(0, 1, 0)),
            ("LOC", counts(3, 5, 3)),
            ("MISC", counts(1, 1, 0)),
            ("ORG", counts(1, 1, 0)),
            ("ORG-X", counts(1, 1, 1)),
            ("PER", counts(5, 3, 1)),
        ];
        assert_eq!(evaluation.by_type(), &expected.map(|(kind, counts)| (kind.to_owned(), counts)).into());

        let metrics = evaluation.metrics();
        let expected = [
            ("f1", 0.43478260869565216),
            ("precision", 0.4166666666666667),
            ("recall", 0.45454545454545453),
            ("accuracy", 0.6923076923076923),
            ("f1_LOC", 0.75),
            ("f1_PER", 0.25),
        ];
        for (name, value) in expected {
            // Fractions of the same counts, rounded once or twice.
            assert!((metrics.get(name).unwrap() - value).abs() < 1e-15, "{name}");
        }
        assert_eq!(metrics.scores()[3].baseline, Some(9.0 / 26.0));
        assert_eq!(metrics.selected().name, "f1");
    }

    #[test]
    fn spans_may_lie_inside_each_other() {
        let spans = |spans: &[(usize, usize, &'static str)]| {
            spans.iter().map(|(start, end, kind)| ((*start, *end), *kind)).collect::<BTreeSet<_>>()
        };
        let targets = [spans(&[(0, 2, "place"), (1, 1, "person")]), spans(&[])];
        let predictions = [spans(&[(0, 2, "place"), (1, 1, "place")]), spans(&[(3, 3, "person")])];
        let found = EntityCounts::of_spans(&targets, &predictions).unwrap();
        assert_eq!(found.overall(), counts(2, 3, 1));
        let metrics = found.metrics();
        assert_eq!(
            (metrics.get("f1"), metrics.get("f1_place"), metrics.get("f1_person")),
            (Some(0.4), Some(2.0 / 3.0), Some(0.0))
        );
        assert_eq!(metrics.selected().name, "f1");
        assert!(EntityCounts::of_spans(&targets, &predictions[1..]).is_err());
    }

    #[test]
    fn refuses_what_is_no_iob() {
        let error = evaluate(&[("O O", "O O"), ("O B-PER", "O S-PER")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "entity metrics, sentence 1, token 1: the tag is `S-PER`, expected O, B-type or I-type: convert other schemes \
             to IOB"
        );
        let error = evaluate(&[("O O", "O")]).unwrap_err().to_string();
        assert_eq!(error, "entity metrics, sentence 0: 1 predicted tags for 2 tokens, expected one each");
        assert!(evaluate(&[]).is_err());
    }

    /// Sentences with targets and predictions.
    fn corpus() -> impl Strategy<Value = Vec<Vec<(&'static str, &'static str)>>> {
        let tag = || prop::sample::select(vec!["O", "O", "B-A", "I-A", "B-B", "I-B"]);
        prop::collection::vec(prop::collection::vec((tag(), tag()), 1..9), 1..9)
    }

    fn unzip(corpus: &[Vec<(&'static str, &'static str)>]) -> (Vec<Vec<&'static str>>, Vec<Vec<&'static str>>) {
        corpus.iter().map(|sentence| sentence.iter().copied().unzip()).unzip()
    }

    /// conlleval's own way: one pass over the tokens, asking at each whether chunks end and start there.
    fn conlleval((targets, predictions): &(Vec<Vec<&str>>, Vec<Vec<&str>>)) -> Counts {
        let boundary = |previous: (&str, &str), current: (&str, &str)| {
            let changes = previous.1 != current.1 || current.0 == "B";
            let starts = current.0 != "O" && (previous.0 == "O" || changes);
            let ends = previous.0 != "O" && (current.0 == "O" || changes);
            (starts, ends)
        };
        let (mut counts, mut going) = (Counts::default(), false);
        for (targets, predictions) in targets.iter().zip(predictions) {
            let mut previous = [("O", ""); 2];
            for pair in targets.iter().zip(predictions).chain([(&"O", &"O")]) {
                let current = [pair.0, pair.1].map(|tag| tag.split_once('-').unwrap_or((*tag, "")));
                let [(starts, ends), (starts_predicted, ends_predicted)] =
                    [0, 1].map(|side| boundary(previous[side], current[side]));
                if going && ends && ends_predicted {
                    counts.correct += 1;
                }
                going &= !ends && !ends_predicted;
                going |= starts && starts_predicted && current[0].1 == current[1].1;
                counts.targets += usize::from(starts);
                counts.predictions += usize::from(starts_predicted);
                previous = current;
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn counts_as_in_one_pass(corpus in corpus()) {
            let corpus = unzip(&corpus);
            prop_assert_eq!(Entities::new(&corpus.0, &corpus.1).unwrap().overall(), conlleval(&corpus));
        }

        #[test]
        fn blind_to_the_order_of_sentences(mut corpus in corpus()) {
            let (targets, predictions) = unzip(&corpus);
            let before = Entities::new(&targets, &predictions).unwrap();
            corpus.reverse();
            let (targets, predictions) = unzip(&corpus);
            prop_assert_eq!(Entities::new(&targets, &predictions).unwrap(), before);
        }

        #[test]
        fn perfect_tags_are_1(corpus in corpus()) {
            let (targets, _) = unzip(&corpus);
            let evaluation = Entities::new(&targets, &targets).unwrap();
            prop_assert_eq!(evaluation.accuracy(), 1.0);
            let any = targets.concat().iter().any(|tag| *tag != "O");
            prop_assert_eq!(evaluation.overall().f1(), f64::from(any));
        }
    }
}
