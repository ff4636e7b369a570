//! Entities and answers: parts of a text.

use deberta_burn::{
    heads::{QuestionAnswering, TokenClassification},
    pipeline::{AnswerOptions, Question, QuestionAnswerer, TagOptions, TokenTagger, WordScores},
};

use crate::{
    TEXTS, TOLERANCE, assert_close, long_text, message, options, question, slice,
    support::{LENGTH, config, folder},
};

#[test]
fn entities_cover_their_words_in_text_of_any_length() {
    // Every word starts an entity, whichever label it gets.
    let folder = folder(config(&["B-LEFT", "B-RIGHT"]), TokenClassification::new);
    let tagger = TokenTagger::from_folder(&folder, options()).unwrap();
    let long = long_text();
    let texts = ["« Zürich » is a war, of 🏔️!", long.as_str(), "law", "   "];
    for words in [WordScores::First, WordScores::Average, WordScores::Max] {
        let tagged = tagger.tag(&texts, TagOptions { words, stride: None }).unwrap();
        for (text, entities) in texts.iter().zip(&tagged) {
            for entity in entities {
                assert_eq!(entity.text, slice(text, entity.start, entity.end));
                assert!(!entity.text.contains(' ') && (0.5..=1.0).contains(&entity.score), "{entity:?}");
            }
            assert!(entities.is_sorted_by(|a, b| a.end <= b.start));
            let joined: String = entities.iter().map(|entity| entity.text.as_str()).collect();
            assert_eq!(joined, text.split_whitespace().collect::<String>());
        }
        let found: Vec<_> = tagged[0].iter().map(|entity| entity.text.as_str()).collect();
        assert_eq!(found[..6], ["«", "Zürich", "»", "is", "a", "war"]);
    }
    let tokens = tagger.tag(&["nations"], TagOptions { words: WordScores::Tokens, stride: None }).unwrap();
    assert!(!tokens[0].is_empty());
}

#[test]
fn windows_change_nothing_for_short_texts_and_batches_nothing_at_all() {
    let folder = folder(config(&["B-A", "I-A", "O"]), TokenClassification::new);
    let tagger = TokenTagger::from_folder(&folder, options()).unwrap();
    let tag = |texts: &[&str], stride| tagger.tag(texts, TagOptions { stride, ..TagOptions::default() }).unwrap();
    let spans = |entities: &[deberta_burn::pipeline::Entity]| {
        entities.iter().map(|entity| (entity.label.clone(), entity.start, entity.end)).collect::<Vec<_>>()
    };
    let batch = tag(&TEXTS, None);
    for (index, text) in TEXTS.iter().enumerate() {
        assert_eq!(spans(&tag(&[text], None)[0]), spans(&batch[index]), "{text}");
        assert_eq!(spans(&tag(&[text], Some(20))[0]), spans(&batch[index]), "{text}");
    }
    let error = message(tagger.tag(&[long_text()], TagOptions { stride: Some(LENGTH), ..TagOptions::default() }));
    assert!(error.contains("text 0") && error.contains("leaves no step"), "{error}");
}

#[test]
fn answers_are_spans_of_their_context() {
    let folder = folder(config(&[]), QuestionAnswering::new);
    let answerer = QuestionAnswerer::from_folder(&folder, options()).unwrap();
    let long = long_text();
    let questions =
        [question("Who?", "« Zürich » is a war, of 🏔️!"), question("What law?", &long), question("Why", "law")];
    let options = AnswerOptions { top_k: 50, max_answer_tokens: 4, ..AnswerOptions::default() };
    let batch = answerer.answer(&questions, &options).unwrap();
    for (question, answers) in questions.iter().zip(&batch) {
        assert!(!answers.no_answer && !answers.spans.is_empty());
        for span in &answers.spans {
            assert_eq!(span.text, slice(&question.context, span.start, span.end));
            assert!(
                !span.text.is_empty() && span.text.trim() == span.text && span.text.split(' ').count() <= 4,
                "{span:?}"
            );
        }
        assert!(answers.spans.is_sorted_by(|a, b| a.score >= b.score));
        assert!(answers.spans.iter().map(|span| span.probability).sum::<f32>() <= 1.0 + TOLERANCE);
        let single = &answerer.answer(std::slice::from_ref(question), &options).unwrap()[0];
        assert_eq!(single.spans[0].text, answers.spans[0].text);
        assert_close(
            &[single.spans[0].score, single.no_answer_margin],
            &[answers.spans[0].score, answers.no_answer_margin],
        );
    }
    // 50 of the best spans of the long context are not all at its start: later windows were read.
    assert!(batch[1].spans.iter().any(|span| span.start > 120), "{:?}", batch[1].spans);
}

#[test]
fn short_contexts_do_not_depend_on_the_stride_and_no_answer_on_the_margin() {
    let folder = folder(config(&[]), QuestionAnswering::new);
    let answerer = QuestionAnswerer::from_folder(&folder, options()).unwrap();
    let questions = [question("Who?", "the people of the nations")];
    let answer = |options: AnswerOptions| answerer.answer(&questions, &options).unwrap().remove(0);
    let plain = answer(AnswerOptions::default());
    assert_eq!(answer(AnswerOptions { stride: Some(1), ..AnswerOptions::default() }), plain);
    let margin = plain.no_answer_margin;
    let threshold = |threshold| AnswerOptions { no_answer_threshold: Some(threshold), ..AnswerOptions::default() };
    assert!(answer(threshold(margin - 0.1)).no_answer && !answer(threshold(margin + 0.1)).no_answer);
}

#[test]
fn impossible_questions_are_named() {
    let folder = folder(config(&[]), QuestionAnswering::new);
    let answerer = QuestionAnswerer::from_folder(&folder, options()).unwrap();
    let ask = |questions: &[Question]| message(answerer.answer(questions, &AnswerOptions::default()));
    assert!(ask(&[]).contains("there are none"));
    assert_eq!(ask(&[question("a", "b"), question(" ", "b")]), "question 1: its question is empty");
    assert_eq!(ask(&[question("a", "")]), "question 0: its context is empty");
    assert!(ask(&[question(&long_text(), &long_text())]).starts_with("question 0: it has"));
    let none = AnswerOptions { top_k: 0, ..AnswerOptions::default() };
    assert!(message(answerer.answer(&[question("a", "b")], &none)).contains("at least 1"));
}
