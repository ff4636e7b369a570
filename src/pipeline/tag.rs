//! Named entities, and other spans of a text, by a token classification head.

use std::path::Path;

use serde::Deserialize;

use super::{
    Entity, Pipeline, PipelineOptions, Runner,
    entities::{LabelledWord, entities},
};
use crate::{
    Result,
    batch::Encoding,
    checkpoint::LoadReport,
    config::TaskConfig,
    heads::TokenClassification,
    model::inference::Prepared,
    scores::{argmax, rows, softmax},
    tokenizer::{Truncation, default_stride},
};

/// How a word of several tokens gets one label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WordScores {
    /// Its first token decides. Token classifiers are usually trained in this way.
    #[default]
    First,
    /// The mean of its tokens' probabilities.
    Average,
    /// The token with the highest probability decides.
    Max,
    /// Every token is a word of its own, for scripts without spaces between words.
    Tokens,
}

/// How texts are tagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagOptions {
    /// How the tokens of a word get one label.
    pub words: WordScores,
    /// Overlap of the windows of a long text, in tokens; if none, a quarter of the maximal length.
    pub stride: Option<usize>,
}

/// A text to be tagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRequest {
    /// The text, of any length.
    pub text: String,
    /// How it is tagged.
    pub options: TagOptions,
}

/// Texts in, entities out.
pub struct TokenTagger {
    runner: Runner,
    head: Prepared<TokenClassification>,
}

/// A token with the probability of each label.
struct ScoredToken {
    start: usize,
    end: usize,
    scores: Vec<f32>,
}

impl TokenTagger {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    /// A missing or damaged file, a checkpoint of another task or without the head (`classifier.*`), or options that do not
    /// fit the model.
    pub fn from_folder(folder: impl AsRef<Path>, options: PipelineOptions) -> Result<Self> {
        let (runner, head) = Runner::open(folder.as_ref(), options)?;
        Ok(Self { runner, head })
    }

    /// What the checkpoint held.
    pub fn report(&self) -> &LoadReport {
        self.runner.report()
    }

    /// Finds the entities of each text. Labels may follow any of the usual schemes (BIO, IO, BIOES, BILOU, or bare
    /// types); `O` means no entity. White space separates words; punctuation around a word does not belong to it.
    ///
    /// A long text is read in overlapping windows. For a token in several windows, the one with most context around it
    /// counts.
    ///
    /// # Errors
    /// No text at all, tokens that the model does not have, a stride so large that windows do not advance, or scores
    /// that are not finite.
    pub fn tag(&self, texts: &[impl AsRef<str>], options: TagOptions) -> Result<Vec<Vec<Entity>>> {
        let request = |text: &str| TagRequest { text: text.to_owned(), options };
        self.run(&texts.iter().map(|text| request(text.as_ref())).collect::<Vec<_>>())
    }

    fn stride(&self, options: TagOptions) -> usize {
        options.stride.unwrap_or(default_stride(self.runner.max_length()))
    }
}

impl Pipeline for TokenTagger {
    type Request = TagRequest;
    type Answer = Vec<Entity>;

    fn runner(&self) -> &Runner {
        &self.runner
    }

    fn encode(&self, TagRequest { text, options }: &TagRequest) -> Result<Vec<Encoding>> {
        self.runner.encode(&[text.into()], Truncation::OnlyFirst, Some(self.stride(*options)))
    }

    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>> {
        let labels = self.runner.config().task().num_labels();
        let logits = rows(self.head.forward(self.runner.input(batch)?))?;
        Ok(batch.iter().zip(logits).map(|(window, logits)| logits[..window.len() * labels].to_vec()).collect())
    }

    fn decode(&self, request: &TagRequest, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Vec<Entity>> {
        self.runner.check_finite(sequences, &rows)?;
        let task = self.runner.config().task();
        let scores: Vec<Vec<Vec<f32>>> =
            rows.iter().map(|logits| logits.chunks(task.num_labels()).map(softmax).collect()).collect();
        let windows: Vec<_> = sequences.iter().zip(scores).collect();
        Ok(tagged(&request.text, &windows, self.stride(request.options), task, request.options.words))
    }
}

fn tagged(
    text: &str,
    windows: &[(&Encoding, Vec<Vec<f32>>)],
    stride: usize,
    task: &TaskConfig,
    strategy: WordScores,
) -> Vec<Entity> {
    let characters: Vec<char> = text.chars().collect();
    let tokens = join_windows(windows, stride);
    let labels: Vec<String> = (0..task.num_labels()).map(|index| task.label(index)).collect();
    let words: Vec<_> = words(&tokens, &characters, strategy == WordScores::Tokens)
        .map(|word| {
            let scores = word_scores(word, strategy);
            let best = argmax(&scores);
            let (start, end) = (word[0].start, word[word.len() - 1].end);
            LabelledWord { start, end, label: &labels[best], score: scores[best] }
        })
        .collect();
    entities(text, &words)
}

/// The tokens of a text in order, each from the window in which it is furthest from the edge.
fn join_windows(windows: &[(&Encoding, Vec<Vec<f32>>)], stride: usize) -> Vec<ScoredToken> {
    let inner = |encoding: &Encoding| encoding.special.iter().filter(|special| !**special).count();
    // All windows but the last are full, so each starts this many tokens after the one before.
    let step = inner(windows[0].0) - if windows.len() > 1 { stride } else { 0 };
    let mut tokens: Vec<(usize, ScoredToken)> = Vec::new();
    for (encoding, scores) in windows {
        let size = inner(encoding);
        let own = (0..encoding.len()).filter(|&token| !encoding.special[token]);
        for (inside, index) in own.enumerate() {
            let context = inside.min(size - 1 - inside);
            let (start, end) = encoding.offsets[index];
            let token = (context, ScoredToken { start, end, scores: scores[index].clone() });
            match tokens.get_mut(encoding.window * step + inside) {
                Some(known) if known.0 < context => *known = token,
                Some(_) => {}
                None => tokens.push(token),
            }
        }
    }
    with_characters(tokens.into_iter().map(|(_, token)| token))
}

/// The tokens that have characters. What has none can be the first token of a word: a lone sign for the space in front of it, where the
/// vocabulary does not hold the word's beginning. Such a token is what a tagger learns from, so that the one behind it gets its scores.
fn with_characters(tokens: impl Iterator<Item = ScoredToken>) -> Vec<ScoredToken> {
    let mut first: Option<ScoredToken> = None;
    let mut found = Vec::new();
    for token in tokens {
        let before = first.take().filter(|before| before.end == token.start);
        match token.start < token.end {
            true => {
                let scores = before.map(|before| before.scores);
                found.push(ScoredToken { scores: scores.unwrap_or(token.scores), ..token });
            }
            false => first = before.or(Some(token)),
        }
    }
    found
}

/// Groups tokens into words. A new word starts after white space, after punctuation in front of a word, and at
/// punctuation behind a word: "(Paris)." is not one word.
fn words<'a>(
    tokens: &'a [ScoredToken],
    characters: &'a [char],
    single: bool,
) -> impl Iterator<Item = &'a [ScoredToken]> {
    let punctuation = |token: &ScoredToken| characters[token.start..token.end].iter().all(|c| !c.is_alphanumeric());
    let between_spaces = tokens.chunk_by(move |left, right| !single && left.end >= right.start);
    between_spaces.flat_map(move |tokens| {
        let front = tokens.iter().take_while(|token| punctuation(token)).count();
        let back = tokens[front..].iter().rev().take_while(|token| punctuation(token)).count();
        let (front, rest) = tokens.split_at(front);
        let (word, back) = rest.split_at(rest.len() - back);
        [front, word, back].into_iter().filter(|part| !part.is_empty())
    })
}

/// The probabilities of the labels of a word.
fn word_scores(tokens: &[ScoredToken], strategy: WordScores) -> Vec<f32> {
    let largest = |token: &ScoredToken| token.scores[argmax(&token.scores)];
    match strategy {
        WordScores::First | WordScores::Tokens => tokens[0].scores.clone(),
        WordScores::Max => {
            let surest = tokens.iter().max_by(|a, b| largest(a).total_cmp(&largest(b)));
            surest.expect("a word has a token").scores.clone()
        }
        WordScores::Average => {
            let mean = |label: usize| tokens.iter().map(|token| token.scores[label]).sum::<f32>() / tokens.len() as f32;
            (0..tokens[0].scores.len()).map(mean).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(offsets: &[(usize, usize)]) -> Vec<ScoredToken> {
        offsets.iter().map(|&(start, end)| ScoredToken { start, end, scores: vec![] }).collect()
    }

    #[test]
    fn words_stand_between_spaces_without_punctuation_around_them() {
        let text: Vec<char> = "(New York). U.S. ...".chars().collect();
        let tokens =
            tokens(&[(0, 1), (1, 4), (5, 7), (7, 9), (9, 10), (10, 11), (12, 13), (13, 14), (14, 16), (17, 20)]);
        let found = |single| {
            let spelled =
                |word: &[ScoredToken]| text[word[0].start..word[word.len() - 1].end].iter().collect::<String>();
            words(&tokens, &text, single).map(spelled).collect::<Vec<_>>()
        };
        assert_eq!(found(false), ["(", "New", "York", ").", "U.S.", "..."]);
        assert_eq!(found(true), ["(", "New", "Yo", "rk", ")", ".", "U", ".", "S.", "..."]);
    }

    #[test]
    fn a_lone_sign_for_a_space_speaks_for_its_word() {
        let token = |start, end, score: f32| ScoredToken { start, end, scores: vec![score] };
        // In front of a word, at the end of a text, and not in front of what stands elsewhere.
        let tokens = [
            token(0, 2, 1.0),
            token(3, 3, 2.0),
            token(3, 4, 3.0),
            token(4, 5, 4.0),
            token(5, 5, 5.0),
            token(6, 7, 6.0),
        ];
        let found = with_characters(tokens.into_iter());
        let scores: Vec<_> = found.iter().map(|token| (token.start, token.scores[0])).collect();
        assert_eq!(scores, [(0, 1.0), (3, 2.0), (4, 4.0), (6, 6.0)]);
    }

    #[test]
    fn strategies_differ() {
        let token = |scores: &[f32]| ScoredToken { start: 0, end: 1, scores: scores.to_vec() };
        let word = [token(&[0.25, 0.75]), token(&[0.875, 0.125])];
        assert_eq!(word_scores(&word, WordScores::First), [0.25, 0.75]);
        assert_eq!(word_scores(&word, WordScores::Max), [0.875, 0.125]);
        assert_eq!(word_scores(&word, WordScores::Average), [0.5625, 0.4375]);
    }

    #[test]
    fn overlapping_windows_give_each_token_once_where_it_has_most_context() {
        // Ten tokens, windows of four inside [CLS] and [SEP], two overlapping; the label's score tells the window.
        let window = |window: usize| {
            let first = window * 2;
            let inner = (first..first + 4).map(|index| (index, index + 1));
            let encoding = Encoding {
                window,
                ids: vec![0; 6],
                offsets: std::iter::once((0, 0)).chain(inner).chain([(0, 0)]).collect(),
                special: vec![true, false, false, false, false, true],
                ..Encoding::default()
            };
            (encoding, vec![vec![window as f32]; 6])
        };
        let windows = [0, 1, 2, 3].map(window);
        let joined = join_windows(&windows.each_ref().map(|(encoding, scores)| (encoding, scores.clone())), 2);
        assert!(joined.iter().map(|token| token.start).eq(0..10));
        let from: Vec<f32> = joined.iter().map(|token| token.scores[0]).collect();
        assert_eq!(from, [0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    }
}
