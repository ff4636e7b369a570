//! Labels for texts and pairs: classifiers, zero-shot classification, reranking.

use std::fs;

use burn::tensor::Device;
use deberta_burn::{
    checkpoint::{Checkpoint, LoadOptions},
    config::ProblemType,
    heads::SequenceClassification,
    pipeline::{Classifier, RankRequest, Reranker, ZeroShot, ZeroShotOptions},
    tokenizer::Text,
};

use crate::{TEXTS, assert_close, input, long_text, message, options, sequence, support::config};

#[test]
fn classification_is_the_softmax_of_the_heads_logits() {
    let labels = ["sad", "glad", "mad"];
    let folder = sequence(config(&labels));
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    let batch = classifier.classify(TEXTS).unwrap();
    assert_eq!(batch.len(), TEXTS.len());

    let head = SequenceClassification::new(&config(&labels).into(), &Device::flex());
    let (head, _) = Checkpoint::open(&folder).unwrap().load(head, &LoadOptions::default()).unwrap();
    for (text, scores) in TEXTS.iter().zip(&batch) {
        let logits = head.forward(input(folder.path(), text));
        let expected = burn::tensor::activation::softmax(logits, 1).into_data().try_to_vec::<f32>().unwrap();
        let by_label: Vec<f32> =
            labels.iter().map(|label| scores.iter().find(|score| score.label == *label).unwrap().score).collect();
        assert_close(&by_label, &expected);
        assert!(scores.is_sorted_by(|a, b| a.score >= b.score));
    }
    // Texts of different lengths shared batches with padding, and still each has its own answer.
    assert_ne!(batch[0], batch[1]);
}

#[test]
fn a_batch_answers_like_single_texts() {
    let folder = sequence(config(&["a", "b"]));
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    let batch = classifier.classify(TEXTS).unwrap();
    for (text, scores) in TEXTS.iter().zip(&batch) {
        let single = &classifier.classify([*text]).unwrap()[0];
        assert_eq!(single[0].label, scores[0].label);
        assert_close(&[single[0].score], &[scores[0].score]);
    }
    let pairs = classifier.classify([("war", "peace"), ("peace", "war and the law of nations")]).unwrap();
    assert_eq!(pairs.len(), 2);
}

#[test]
fn labels_on_their_own_and_numbers() {
    let mut multi_label = config(&["a", "b"]);
    multi_label.task.problem_type = Some(ProblemType::MultiLabelClassification);
    let folder = sequence(multi_label);
    let single_label = Classifier::from_folder(&folder, options()).unwrap().classify(TEXTS).unwrap();
    let sum = |scores: &[_]| scores.iter().map(|score: &deberta_burn::pipeline::LabelScore| score.score).sum::<f32>();
    assert!(single_label.iter().any(|scores| (sum(scores) - 1.0).abs() > 0.01), "{single_label:?}");

    // The same weights as a regression: sigmoid of the number is the label's probability.
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replace("multi_label_classification", "regression");
    fs::write(&path, text).unwrap();
    let numbers = Classifier::from_folder(&folder, options()).unwrap().classify(TEXTS).unwrap();
    for (numbers, scores) in numbers.iter().zip(&single_label) {
        assert_eq!((numbers[0].label.as_str(), numbers[1].label.as_str()), ("a", "b"));
        for number in numbers {
            let score = scores.iter().find(|score| score.label == number.label).unwrap().score;
            assert_close(&[score], &[1.0 / (1.0 + (-number.score).exp())]);
        }
    }
}

#[test]
fn zero_shot_judges_candidates_by_entailment() {
    let folder = sequence(config(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]));
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    let candidates = ["war", "peace", "law"];
    let template = ZeroShotOptions { template: "It is {}.".into(), multi_label: false };
    let scores = zero_shot.classify(&TEXTS, &candidates, &template).unwrap();
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    for (text, scores) in TEXTS.iter().zip(&scores) {
        assert_close(&[scores.iter().map(|score| score.score).sum()], &[1.0]);
        // Odds of two candidates in the single-label case cannot be told from probabilities; in the multi-label case they
        // can: entailment against contradiction.
        let multi_label = ZeroShotOptions { multi_label: true, ..template.clone() };
        let own = &zero_shot.classify(&[*text], &candidates, &multi_label).unwrap()[0];
        for score in own {
            let pair = Text::from((*text, format!("It is {}.", score.label)));
            let classes = &classifier.classify([pair]).unwrap()[0];
            let class = |name| classes.iter().find(|class| class.label == name).unwrap().score;
            let expected = class("ENTAILMENT") / (class("ENTAILMENT") + class("CONTRADICTION"));
            assert_close(&[score.score], &[expected]);
        }
    }
}

#[test]
fn one_candidate_is_judged_on_its_own() {
    let folder = sequence(config(&["CONTRADICTION", "NEUTRAL", "ENTAILMENT"]));
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    let scores = |candidates: &[&str], multi_label| {
        let options = ZeroShotOptions { multi_label, ..ZeroShotOptions::default() };
        zero_shot.classify(&["the law"], candidates, &options).unwrap().remove(0)
    };
    let own = scores(&["war", "peace"], true).into_iter().find(|score| score.label == "war").unwrap().score;
    assert!(own < 1.0);
    for multi_label in [false, true] {
        // White space around a candidate is no part of it.
        let single = scores(&["  war ", "", " "], multi_label);
        assert_eq!((single.len(), single[0].label.as_str()), (1, "war"));
        assert_close(&[single[0].score], &[own]);
    }
}

#[test]
fn zero_shot_says_what_it_needs() {
    let folder = sequence(config(&["positive", "negative"]));
    let error = message(ZeroShot::from_folder(&folder, options()));
    assert!(error.contains("positive, negative") && error.contains("entailment"), "{error}");

    let folder = sequence(config(&["entailment", "neutral"]));
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    let classify =
        |candidates: &[&str], options: &ZeroShotOptions| message(zero_shot.classify(&["a"], candidates, options));
    let fine = ZeroShotOptions::default();
    assert!(classify(&[], &fine).contains("candidates: there are none"));
    assert!(classify(&["b"], &ZeroShotOptions { template: "no".into(), ..fine.clone() }).contains("`no` has no {}"));
    assert!(classify(&[" ", ""], &fine).contains("candidates: there are none"));
    // The hypothesis must stay whole.
    let error = message(zero_shot.classify(&["a", "b"], &[long_text()], &fine));
    assert!(error.starts_with("text 0: ") && error.contains("cannot shorten it enough"), "{error}");
}

#[test]
fn reranking_sorts_by_score_and_keeps_requests_apart() {
    let folder = sequence(config(&["irrelevant", "relevant"]));
    let reranker = Reranker::from_folder(&folder, options()).unwrap();
    assert_eq!(reranker.meaning(), "logit of relevant less logit of irrelevant");
    let request = |query: &str, passages: &[&str]| {
        RankRequest::new(query, passages.iter().map(|&passage| passage.to_owned()).collect())
    };
    let requests = [request("law", &TEXTS), request("peace", &["war", "people"])];
    let rankings = reranker.rank(&requests).unwrap();
    assert_eq!(rankings.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    for (request, ranking) in requests.iter().zip(&rankings) {
        assert!(ranking.is_sorted_by(|a, b| a.score >= b.score));
        let mut indices: Vec<_> = ranking.iter().map(|place| place.index).collect();
        indices.sort_unstable();
        assert!(indices.into_iter().eq(0..request.passages.len()));
        for place in ranking {
            let classes = &classifier.classify([(&request.query, &request.passages[place.index])]).unwrap()[0];
            let relevant = classes.iter().find(|class| class.label == "relevant").unwrap().score;
            assert_close(&[place.probability], &[relevant]);
            assert_close(&[1.0 / (1.0 + (-place.score).exp())], &[relevant]);
        }
    }
    assert!(message(reranker.rank(&[request("a", &[])])).contains("request 0: it has no passages"));
    assert!(message(reranker.rank(&[])).contains("there are none"));
    let error = message(reranker.rank(&[request("a", &["b", "c"]), request(&long_text(), &["d"])]));
    assert!(error.starts_with("request 1, passage 0: ") && error.contains("cannot shorten it enough"), "{error}");
    let three = sequence(config(&["a", "b", "c"]));
    assert!(message(Reranker::from_folder(&three, options())).contains("it has 3 labels"));
}

#[test]
fn relevance_is_what_the_folder_says() {
    let folder = sequence(config(&["score"]));
    let request = [RankRequest::new("war", vec!["peace".into(), "the laws of nations".into()])];
    let places = || Reranker::from_folder(&folder, options()).unwrap().rank(&request).unwrap().concat();
    // Without a word about it, the sigmoid.
    assert!(places().iter().all(|place| place.relevance == place.probability));

    let path = folder.path().join("config.json");
    let plain = fs::read_to_string(&path).unwrap();
    let with = |key: &str, value: &str| plain.replacen('{', &format!("{{\"{key}\": {value},"), 1);
    let identity = r#""torch.nn.modules.linear.Identity""#;
    for config in [
        with("sentence_transformers", &format!("{{\"activation_fn\": {identity}}}")),
        with("sbert_ce_default_activation_function", identity),
    ] {
        fs::write(&path, config).unwrap();
        assert!(places().iter().all(|place| place.relevance == place.score && place.relevance != place.probability));
    }
    // The newest file wins.
    let newest = folder.path().join("config_sentence_transformers.json");
    fs::write(&newest, r#"{"activation_fn": "torch.nn.modules.activation.Sigmoid"}"#).unwrap();
    assert!(places().iter().all(|place| place.relevance == place.probability));
    fs::write(&newest, r#"{"activation_fn": "torch.nn.modules.activation.Tanh"}"#).unwrap();
    let error = message(Reranker::from_folder(&folder, options()));
    assert!(error.contains("`activation_fn` is \"torch.nn.modules.activation.Tanh\""), "{error}");
}
