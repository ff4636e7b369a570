//! Lengths, batches, and what a caller is told about them.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use deberta_burn::{
    heads::{MaskedLmLayout, QuestionAnswering, TokenClassification},
    pipeline::{
        AnswerOptions, Classifier, Embedder, FillMask, PipelineOptions, QuestionAnswerer, RankRequest, Reranker,
        TagOptions, TokenTagger, TruncationListener, ZeroShot, ZeroShotOptions,
    },
    tokenizer::Truncated,
};

use crate::{
    TEXTS, long_text, masked_lm, message, options, question, sequence,
    support::{LENGTH, config},
};

#[test]
fn the_tokenizers_settings_limit_the_length() {
    let folder = sequence(config(&["a", "b"]));
    let path = folder.path().join("tokenizer_config.json");
    let mut settings: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let long = long_text();
    let told = |settings: &serde_json::Value, max_length| {
        fs::write(&path, settings.to_string()).unwrap();
        let told = Arc::new(Mutex::new(None));
        let listener = told.clone();
        let truncated: TruncationListener = Arc::new(move |truncated| *listener.lock().unwrap() = Some(truncated));
        let options = PipelineOptions { truncated, max_length, ..options() };
        let scores = Classifier::from_folder(&folder, options).unwrap().classify([&long]).unwrap().remove(0);
        (told.lock().unwrap().take().map(|truncated| truncated.max_length), scores[0].score)
    };
    let (length, of_start) = told(&settings, None);
    assert_eq!(length, Some(LENGTH));
    settings["model_max_length"] = 12.into();
    assert_eq!(told(&settings, None).0, Some(12));
    assert_eq!(told(&settings, Some(20)).0, Some(20), "the caller is free");
    settings["model_max_length"] = serde_json::Value::from(1e30);
    assert_eq!(told(&settings, None), (Some(LENGTH), of_start));
    settings["truncation_side"] = "left".into();
    let (length, of_end) = told(&settings, None);
    assert_eq!(length, Some(LENGTH));
    assert_ne!(of_start, of_end);
    // Relative positions set no limit: a longer one than the model was trained with counts too.
    settings["model_max_length"] = 1000.into();
    assert_eq!(told(&settings, None).0, None);
}

#[test]
fn limits_and_empty_batches_are_errors() {
    let mut biased = config(&["a", "b"]);
    biased.position_biased_input = true;
    let folder = sequence(biased);
    let long = PipelineOptions { max_length: Some(LENGTH + 1), ..options() };
    assert!(message(Classifier::from_folder(&folder, long)).contains("absolute positions end at 32"));
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    assert!(message(classifier.classify([""; 0])).contains("texts: there are none"));
    // Cut to what the model takes.
    assert_eq!(classifier.classify([long_text()]).unwrap().len(), 1);
    // Relative positions alone set no limit.
    let folder = sequence(config(&["a", "b"]));
    let long = PipelineOptions { max_length: Some(4 * LENGTH), ..options() };
    assert_eq!(Classifier::from_folder(&folder, long).unwrap().classify([long_text()]).unwrap().len(), 1);
    let none = PipelineOptions { batch_tokens: 0, ..options() };
    assert!(message(Classifier::from_folder(&folder, none).unwrap().classify(["a"])).contains("batch tokens"));
    let short = PipelineOptions { max_length: Some(2), ..options() };
    assert!(message(Classifier::from_folder(&folder, short).unwrap().classify(["a"])).contains("max_length is 2"));
}

/// Of 10,000 characters, most of which are cut.
#[test]
fn a_very_long_word_is_a_text_like_others() {
    let word = "abc".repeat(3_334);
    let labels = sequence(config(&["entailment", "contradiction"]));
    let score = Classifier::from_folder(&labels, options()).unwrap().classify([&word]).unwrap()[0][0].score;
    assert!((0.5..=1.0).contains(&score), "{score}");
    let reranker = Reranker::from_folder(&labels, options()).unwrap();
    let rank = |query: &str| reranker.rank(&[RankRequest::new(query, vec![word.clone(), "war".into()])]);
    assert_eq!(rank("war").unwrap()[0].len(), 2);
    // The query stays whole, so that one of this length is too much.
    assert!(message(rank(&word)).contains("max_length 32"));
    let zero_shot = ZeroShot::from_folder(&labels, options()).unwrap();
    let judge = |labels: &[&str]| zero_shot.classify(&[&word], labels, &ZeroShotOptions::default());
    assert_eq!(judge(&["war", "peace"]).unwrap()[0].len(), 2);
    // So does a label.
    assert!(message(judge(&["war", &word])).contains("max_length 32"));
    assert_eq!(Embedder::from_folder(&labels, options()).unwrap().embed([&word]).unwrap()[0].len(), 16);
    // A mask might be in what is cut.
    let words = FillMask::from_folder(masked_lm(MaskedLmLayout::EnhancedMaskDecoder), options()).unwrap();
    let error = message(words.fill(&["[MASK] war".to_owned(), format!("[MASK] {word}")], 1));
    assert!(error.starts_with("text 1: ") && error.contains("shorten it"), "{error}");

    // Read in windows, up to the end of the word.
    let tagger = crate::support::folder(config(&["B-LEFT", "B-RIGHT"]), TokenClassification::new);
    let tagger = TokenTagger::from_folder(&tagger, options()).unwrap();
    let entities = tagger.tag(&[&word], TagOptions::default()).unwrap().remove(0);
    assert_eq!((entities[0].start, entities[0].end), (0, word.len()));
    let answers = crate::support::folder(config(&[]), QuestionAnswering::new);
    let answers = QuestionAnswerer::from_folder(&answers, options()).unwrap();
    let found = answers.answer(&[question("war", &word)], &AnswerOptions::default()).unwrap();
    assert!(found[0].spans.iter().all(|answer| answer.end <= word.len()));
}

#[test]
fn a_thousand_labels_are_each_judged() {
    let labels: Vec<String> = (0..1000).map(|index| format!("law {index}")).collect();
    let folder = sequence(config(&["entailment", "contradiction"]));
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    let scores = zero_shot.classify(&["war"], &labels, &ZeroShotOptions::default()).unwrap().remove(0);
    assert_eq!(scores.len(), 1000);
    // A thousand roundings of f32.
    assert!((scores.iter().map(|score| score.score).sum::<f32>() - 1.0).abs() < 1e-4);
}

#[test]
fn cut_texts_are_told_once_a_call() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let options = || {
        let listener = told.clone();
        let truncated: TruncationListener = Arc::new(move |truncated| listener.lock().unwrap().push(truncated));
        PipelineOptions { truncated, ..options() }
    };
    let heard = || told.lock().unwrap().drain(..).collect::<Vec<_>>();
    let cut = |texts| vec![Truncated { texts, max_length: LENGTH }];
    let long = long_text();
    let folder = sequence(config(&["entailment", "contradiction"]));
    let texts = ["a", &long, "b", &long];

    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    classifier.classify(TEXTS).unwrap();
    assert!(heard().is_empty());
    classifier.classify(texts).unwrap();
    assert_eq!(heard(), cut(2));
    Embedder::from_folder(&folder, options()).unwrap().embed(texts).unwrap();
    assert_eq!(heard(), cut(2));
    // A text counts once, however many candidates it is judged by.
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    zero_shot.classify(&texts, &["war", "peace", "law"], &ZeroShotOptions::default()).unwrap();
    assert_eq!(heard(), cut(2));
    let passages: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    let request = RankRequest::new("law", passages);
    Reranker::from_folder(&folder, options()).unwrap().rank(&[request.clone(), request]).unwrap();
    assert_eq!(heard(), cut(4));

    // Windows leave nothing out.
    let folder = crate::support::folder(config(&["A", "O"]), TokenClassification::new);
    TokenTagger::from_folder(&folder, options()).unwrap().tag(&texts, TagOptions::default()).unwrap();
    let folder = crate::support::folder(config(&[]), QuestionAnswering::new);
    let questions = [question("a", &long)];
    let spans = AnswerOptions { max_answer_tokens: usize::MAX, top_k: usize::MAX, ..AnswerOptions::default() };
    let answers = QuestionAnswerer::from_folder(&folder, options()).unwrap().answer(&questions, &spans).unwrap();
    assert!(answers[0].spans.len() > 100);
    assert!(heard().is_empty());
}

#[test]
fn progress_is_told_after_each_batch() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let progress: deberta_burn::pipeline::Progress =
        Arc::new(move |done, total| listener.lock().unwrap().push((done, total)));
    let folder = sequence(config(&["a", "b"]));
    let classifier =
        Classifier::from_folder(&folder, PipelineOptions { progress: Some(progress), batch_tokens: 1, ..options() })
            .unwrap();
    classifier.classify(TEXTS).unwrap();
    assert_eq!(*told.lock().unwrap(), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
}
