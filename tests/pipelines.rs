//! Pipelines on small random checkpoints: the answers are no wiser than their weights, but order, offsets, batching, windows
//! and errors are what they will be with trained ones.

mod support;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    Tensor,
    tensor::{Device, FloatDType, Int},
};
use deberta_burn::{
    Backbone, DebertaConfig, Error, ModelConfig, ModelInput, Result, RobertaConfig,
    checkpoint::{self, Checkpoint, LoadOptions},
    config::ProblemType,
    heads::{
        MaskedLm, MaskedLmLayout, QuestionAnswering, ReplacedTokenDetection, SequenceClassification,
        TokenClassification,
    },
    pipeline::{
        AnswerOptions, Classifier, EmbedOptions, Embedder, FillMask, PipelineOptions, Pooling, Question,
        QuestionAnswerer, RankRequest, Reranker, TagOptions, TokenTagger, TruncationListener, WordScores, ZeroShot,
        ZeroShotOptions,
    },
    tokenizer::{EncodeOptions, Text, Tokenizer, Truncated},
};
use support::{LENGTH, config, folder};
use tempfile::TempDir;

/// Batches differ from single texts by the order of f32 sums; scores are below 1, states a few units.
const TOLERANCE: f32 = 1e-4;

const TEXTS: [&str; 5] =
    ["war", "The laws of nature and of nations.", "a", "It is true, « ça va » 🏔️ of the people", "to be"];

fn options() -> PipelineOptions {
    PipelineOptions { batch_size: 2, ..PipelineOptions::new(Device::flex()) }
}

fn sequence(config: DebertaConfig) -> TempDir {
    folder(config, SequenceClassification::new)
}

fn masked_lm(layout: MaskedLmLayout) -> TempDir {
    folder(config(&[]), |config, device| MaskedLm::new(config, layout, device).unwrap())
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

fn assert_close(left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len());
    let close = left.iter().zip(right).all(|(left, right)| (left - right).abs() <= TOLERANCE);
    assert!(close, "{left:?} is not {right:?}");
}

/// The part of a text between two offsets in characters.
fn slice(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end - start).collect()
}

/// A text far longer than the model's input.
fn long_text() -> String {
    (0..40)
        .map(|index| ["war", "peace", "the law", "of «nations»", "🏔️ people"][index % 5])
        .collect::<Vec<_>>()
        .join(" ")
}

/// Token ids as the pipelines make them.
fn input(folder: &Path, text: &str) -> ModelInput {
    let tokenizer = Tokenizer::from_folder(folder).unwrap();
    let encodings = tokenizer.encode(&[text.into()], &EncodeOptions::default()).unwrap();
    let ids: Vec<i32> = encodings[0].ids.iter().map(|&id| id as i32).collect();
    ModelInput::new(Tensor::<1, Int>::from_data(&ids[..], &Device::flex()).unsqueeze())
}

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
    let request = |query: &str, passages: &[&str]| RankRequest {
        query: query.to_owned(),
        passages: passages.iter().map(|&passage| passage.to_owned()).collect(),
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
fn masks_are_filled_by_the_enhanced_mask_decoder() {
    let folder = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let model = FillMask::from_folder(&folder, options()).unwrap();
    assert!(model.head().contains("enhanced mask decoder"), "{}", model.head());
    let texts = ["[MASK] of the people", "war", "the [MASK] and the [MASK] of nations"]
        .map(|text| text.replace("war", "[MASK]"));
    let filled = model.fill(&texts, 4).unwrap();
    assert_eq!(filled.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);

    let head = MaskedLm::new(&config(&[]).into(), MaskedLmLayout::EnhancedMaskDecoder, &Device::flex()).unwrap();
    let (head, _) = Checkpoint::open(&folder).unwrap().load(head, &LoadOptions::default()).unwrap();
    for (text, masks) in texts.iter().zip(&filled) {
        let scores = burn::tensor::activation::softmax(head.forward(input(folder.path(), text)), 2);
        for mask in masks {
            let scores = scores.clone().slice([0..1, mask.position..mask.position + 1]).into_data();
            let scores = scores.try_to_vec::<f32>().unwrap();
            assert_eq!(mask.words.len(), 4);
            assert!(mask.words.is_sorted_by(|a, b| a.score >= b.score));
            for word in &mask.words {
                assert_close(&[word.score], &[scores[word.id as usize]]);
            }
            // Rows of the table beyond the vocabulary are no words.
            let best = (0..1536).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            assert_eq!(mask.words[0].id as usize, best);
        }
    }
}

#[test]
fn the_head_in_the_file_decides() {
    for (layout, head) in [(MaskedLmLayout::Legacy, "cls.predictions"), (MaskedLmLayout::LastLayer, "last layer")] {
        let mut config = config(&[]);
        config.legacy = layout == MaskedLmLayout::Legacy;
        let folder = folder(config, |config, device| MaskedLm::new(config, layout, device).unwrap());
        let model = FillMask::from_folder(&folder, options()).unwrap();
        assert!(model.head().contains(head), "{layout:?}: {}", model.head());
        assert_eq!(model.fill(&["a [MASK]"], 3).unwrap()[0][0].words.len(), 3);
    }
}

#[test]
fn fill_mask_says_what_it_cannot_do() {
    let folder = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let model = FillMask::from_folder(&folder, options()).unwrap();
    assert!(message(model.fill(&["a [MASK]", "no mask"], 1)).starts_with("text 1: it holds no [MASK]"));
    let error = message(model.fill(&[format!("{} [MASK]", long_text())], 1));
    assert!(error.contains("text 0") && error.contains("shorten it"), "{error}");
    assert!(message(model.fill(&[""; 0], 1)).contains("there are none"));

    let discriminator = support::folder(config(&[]), ReplacedTokenDetection::new);
    assert!(message(FillMask::from_folder(&discriminator, options())).contains("discriminator"));
    let classifier = sequence(config(&["a", "b"]));
    assert!(message(FillMask::from_folder(&classifier, options())).contains("no language model head"));
    // The decoder's absolute positions are a limit that the encoder does not have.
    let long = PipelineOptions { max_length: Some(LENGTH + 1), ..options() };
    let error = message(FillMask::from_folder(&folder, long));
    assert!(error.contains("max length: it is 33") && error.contains("end at 32"), "{error}");
}

#[test]
fn roberta_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/roberta");
    for file in ["vocab.json", "merges.txt"] {
        fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let mut config = RobertaConfig {
        vocab_size: 501,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 34,
        initializer_range: 0.5,
        pad_token_id: 1,
        ..RobertaConfig::default()
    };
    let device = Device::flex();

    let masked_lm = ModelConfig::from(config.clone());
    let model = MaskedLm::new(&masked_lm, MaskedLmLayout::LastLayer, &device).unwrap();
    checkpoint::write(&model, &masked_lm, folder.path(), None).unwrap();
    let model = FillMask::from_folder(&folder, options()).unwrap();
    let [ours, theirs] = &model.fill(&["a [MASK] b", "a <mask> b"], 2).unwrap()[..] else { panic!("two texts") };
    assert_eq!(ours[0].words[0].id, theirs[0].words[0].id);

    config.task = config.task.with_num_labels(2);
    let config = ModelConfig::from(config);
    let model = SequenceClassification::new(&config, &device);
    checkpoint::write(&model, &config, folder.path(), None).unwrap();
    let classifier = Classifier::from_folder(&folder, options()).unwrap();
    let batch = classifier.classify(["a", "a longer text"]).unwrap();
    let single = classifier.classify(["a"]).unwrap();
    let score = |scores: &[deberta_burn::pipeline::LabelScore]| {
        scores.iter().find(|score| score.label == "LABEL_0").unwrap().score
    };
    assert_close(&[score(&batch[0])], &[score(&single[0])]);
}

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

fn question(question: &str, context: &str) -> Question {
    Question { question: question.to_owned(), context: context.to_owned() }
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

#[test]
fn embeddings_are_pooled_states_of_any_checkpoint() {
    let folder = sequence(config(&["a", "b"]));
    let embedder = Embedder::from_folder(&folder, options()).unwrap();
    let embed = |pooling: &[Pooling], normalize| {
        embedder.embed(TEXTS, &EmbedOptions { pooling: pooling.to_vec(), normalize }).unwrap()
    };
    let single = |pooling| embed(&[pooling], false);
    let (mean, cls, max) = (single(Pooling::Mean), single(Pooling::Cls), single(Pooling::Max));
    let (last, weighted) = (single(Pooling::LastToken), single(Pooling::WeightedMean));

    let (model, _) =
        Checkpoint::open(&folder).unwrap().load(config(&[]).init(&Device::flex()), &LoadOptions::default()).unwrap();
    for (index, text) in TEXTS.iter().enumerate() {
        let states = model.forward(input(folder.path(), text)).last_hidden_state;
        let values = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
        assert_close(&mean[index], &values(states.clone().mean_dim(1)));
        assert_close(&cls[index], &values(states.clone().narrow(1, 0, 1)));
        assert_close(&max[index], &values(states.clone().max_dim(1)));
        let length = states.dims()[1];
        assert_close(&last[index], &values(states.clone().narrow(1, length - 1, 1)));
        let weights = Tensor::<1, Int>::arange(1..length as i64 + 1, &Device::flex()).float().reshape([1, length, 1]);
        let total = weights.clone().sum().into_scalar::<f32>();
        assert_close(&weighted[index], &values((states * weights).sum_dim(1) / total));
    }
    // Several are put one behind the other.
    let both = embed(&[Pooling::Cls, Pooling::Mean], false);
    assert_close(&both[1], &[&cls[1][..], &mean[1]].concat());
    let none = EmbedOptions { pooling: vec![], normalize: false };
    assert!(message(embedder.embed(TEXTS, &none)).contains("no pooling is named"));
    for (unit, mean) in embed(&[Pooling::Mean], true).iter().zip(&mean) {
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_close(unit, &mean.iter().map(|x| x / length).collect::<Vec<_>>());
    }
    assert_eq!(mean[0].len(), 16);
}

#[test]
fn long_texts_are_cut_where_there_are_no_windows() {
    let folder = sequence(config(&["a", "b"]));
    let embedder = Embedder::from_folder(&folder, options()).unwrap();
    let embed = |text: &str| embedder.embed([text], &EmbedOptions::default()).unwrap().remove(0);
    let long = long_text();
    assert_eq!(embed(&long), embed(&format!("{long} and more of it")));
    let short = PipelineOptions { max_length: Some(8), ..options() };
    assert_ne!(
        Embedder::from_folder(&folder, short).unwrap().embed([&long], &EmbedOptions::default()).unwrap()[0],
        embed(&long)
    );
}

#[test]
fn heads_of_other_tasks_are_refused() {
    let mut classifier = config(&["a", "b"]);
    classifier.task.architectures = vec!["DebertaV2ForSequenceClassification".into()];
    let folder = sequence(classifier);
    let error = message(TokenTagger::from_folder(&folder, options()));
    assert!(
        error.contains("DebertaV2ForSequenceClassification") && error.contains("ForTokenClassification"),
        "{error}"
    );
    // Without a declaration the tensors tell.
    let undeclared = sequence(config(&["a", "b"]));
    let error = message(QuestionAnswerer::from_folder(&undeclared, options()));
    assert!(error.contains("qa_outputs.weight") && error.contains("missing"), "{error}");
    let bare = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let error = message(Classifier::from_folder(&bare, options()));
    assert!(error.contains("classifier.weight") && error.contains("fine-tune"), "{error}");
    let wrong_count = sequence(config(&["a", "b"]));
    let path = wrong_count.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"b\"", "\"b\", \"2\": \"c\"");
    fs::write(&path, text).unwrap();
    assert!(Classifier::from_folder(&wrong_count, options()).is_err());
}

#[test]
fn a_name_left_over_from_the_backbone_gives_way_to_the_weights() {
    let named = |name: &str, labels: &[&str]| {
        let mut config = config(labels);
        config.task.architectures = vec![name.to_owned()];
        config
    };
    for name in ["DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForTokenClassification"] {
        assert!(Classifier::from_folder(sequence(named(name, &["a", "b"])), options()).is_ok(), "{name}");
    }
    let tagger = |name| folder(named(name, &["A", "O"]), TokenClassification::new);
    for name in ["DebertaV2Model", "DebertaV2ForSequenceClassification"] {
        assert!(TokenTagger::from_folder(tagger(name), options()).is_ok(), "{name}");
        let error = message(Classifier::from_folder(tagger(name), options()));
        assert!(error.contains(&format!("this is a {name}")) || error.contains("is missing"), "{error}");
    }
    let answers = folder(named("DebertaV2ForMaskedLM", &[]), QuestionAnswering::new);
    assert!(QuestionAnswerer::from_folder(answers, options()).is_ok());
    // Where the weights of the head are not there either, the name says what is.
    let error = message(Classifier::from_folder(folder(named("DebertaV2Model", &[]), Backbone::new), options()));
    assert!(error.contains("this is a DebertaV2Model; this task needs a …ForSequenceClassification"), "{error}");

    let setfit = folder(named("DebertaV2Model", &[]), Backbone::new);
    fs::write(setfit.path().join("model_head.pkl"), "").unwrap();
    let error = message(Classifier::from_folder(&setfit, options()));
    assert!(error.contains("SetFit") && error.contains("not supported"), "{error}");
}

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
    let none = PipelineOptions { batch_size: 0, ..options() };
    assert!(message(Classifier::from_folder(&folder, none).unwrap().classify(["a"])).contains("batch size"));
    let short = PipelineOptions { max_length: Some(2), ..options() };
    assert!(message(Classifier::from_folder(&folder, short).unwrap().classify(["a"])).contains("max_length is 2"));
}

/// The folder with another first value of one of its tensors.
fn with_value(folder: TempDir, key: &str, value: f32) -> TempDir {
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = header + tensors[key]["data_offsets"][0].as_u64().unwrap_or_else(|| panic!("{key}")) as usize;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    folder
}

#[test]
fn answers_that_are_not_finite_are_errors() {
    // An f32 that f16 does not reach.
    let huge = |folder, key| with_value(folder, key, 1e6);
    let (f32, f16) = (options(), PipelineOptions { dtype: FloatDType::F16, ..options() });
    let check = |name: &str, ask: &dyn Fn(PipelineOptions) -> Option<Error>| {
        assert!(ask(f32.clone()).is_none(), "{name} in f32");
        let error = ask(f16.clone()).unwrap_or_else(|| panic!("{name} in f16"));
        assert!(matches!(error, Error::NotFinite { index: 0, .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with(&format!("{name}: the model's answer holds ")), "{message}");
        assert!(message.ends_with("(`--dtype bf16|f32`)"), "{message}");
    };
    let folder = huge(sequence(config(&["entailment", "contradiction"])), "classifier.bias");
    let request = [RankRequest { query: "a".into(), passages: vec!["b".into()] }];
    check("text 0", &|options| Classifier::from_folder(&folder, options).unwrap().classify(["a"]).err());
    check("request 0, passage 0", &|options| Reranker::from_folder(&folder, options).unwrap().rank(&request).err());
    check("text 0", &|options| {
        ZeroShot::from_folder(&folder, options)
            .unwrap()
            .classify(&["a"], &["b", "c"], &ZeroShotOptions::default())
            .err()
    });
    let folder = huge(support::folder(config(&["A", "O"]), TokenClassification::new), "classifier.bias");
    check("text 0", &|options| {
        TokenTagger::from_folder(&folder, options).unwrap().tag(&["a"], TagOptions::default()).err()
    });
    let folder = huge(support::folder(config(&[]), QuestionAnswering::new), "qa_outputs.bias");
    check("question 0", &|options| {
        let questions = [question("a", "b")];
        QuestionAnswerer::from_folder(&folder, options).unwrap().answer(&questions, &AnswerOptions::default()).err()
    });
    let folder = huge(masked_lm(MaskedLmLayout::EnhancedMaskDecoder), "lm_predictions.lm_head.bias");
    check("text 0", &|options| FillMask::from_folder(&folder, options).unwrap().fill(&["a [MASK]"], 1).err());
    let folder = huge(sequence(config(&["a", "b"])), "deberta.encoder.layer.1.output.LayerNorm.bias");
    check("text 0", &|options| {
        Embedder::from_folder(&folder, options).unwrap().embed(["a"], &EmbedOptions::default()).err()
    });

    let broken = with_value(sequence(config(&["a", "b"])), "classifier.bias", f32::NAN);
    let error = Classifier::from_folder(&broken, options()).unwrap().classify(["a"]).unwrap_err().to_string();
    assert!(error.contains("holds NaN, expected finite numbers; the checkpoint's weights are damaged"), "{error}");
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
    Embedder::from_folder(&folder, options()).unwrap().embed(texts, &EmbedOptions::default()).unwrap();
    assert_eq!(heard(), cut(2));
    // A text counts once, however many candidates it is judged by.
    let zero_shot = ZeroShot::from_folder(&folder, options()).unwrap();
    zero_shot.classify(&texts, &["war", "peace", "law"], &ZeroShotOptions::default()).unwrap();
    assert_eq!(heard(), cut(2));
    let passages: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
    let request = RankRequest { query: "law".into(), passages };
    Reranker::from_folder(&folder, options()).unwrap().rank(&[request.clone(), request]).unwrap();
    assert_eq!(heard(), cut(4));

    // Windows leave nothing out.
    let folder = support::folder(config(&["A", "O"]), TokenClassification::new);
    TokenTagger::from_folder(&folder, options()).unwrap().tag(&texts, TagOptions::default()).unwrap();
    let folder = support::folder(config(&[]), QuestionAnswering::new);
    let questions = [question("a", &long)];
    let spans = AnswerOptions { max_answer_tokens: usize::MAX, top_k: usize::MAX, ..AnswerOptions::default() };
    let answers = QuestionAnswerer::from_folder(&folder, options()).unwrap().answer(&questions, &spans).unwrap();
    assert!(answers[0].spans.len() > 100);
    assert!(heard().is_empty());
}

#[test]
fn a_folder_of_sentence_transformers_says_how_to_pool() {
    let folder = sequence(config(&["a", "b"]));
    assert_eq!(EmbedOptions::from_folder(&folder).unwrap(), None);
    let pooling = folder.path().join("1_Pooling");
    fs::create_dir(&pooling).unwrap();
    let config =
        r#"{"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#;
    fs::write(pooling.join("config.json"), config).unwrap();
    let modules =
        r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Normalize"}]"#;
    fs::write(folder.path().join("modules.json"), modules).unwrap();
    let found = EmbedOptions::from_folder(&folder).unwrap().unwrap();
    assert_eq!(found, EmbedOptions { pooling: vec![Pooling::Cls, Pooling::Mean], normalize: true });
    let vectors = Embedder::from_folder(&folder, options()).unwrap().embed(["war"], &found).unwrap();
    assert_eq!(vectors[0].len(), 32);
    assert_close(&[vectors[0].iter().map(|x| x * x).sum()], &[1.0]);
    fs::write(pooling.join("config.json"), config.replace("mean_tokens", "moon_tokens")).unwrap();
    let error = message(EmbedOptions::from_folder(&folder));
    assert!(error.contains("1_Pooling/config.json: the pooling `moon_tokens` is not known"), "{error}");
}

#[test]
fn progress_is_told_after_each_batch() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = told.clone();
    let progress: deberta_burn::pipeline::Progress =
        Arc::new(move |done, total| listener.lock().unwrap().push((done, total)));
    let folder = sequence(config(&["a", "b"]));
    let classifier =
        Classifier::from_folder(&folder, PipelineOptions { progress: Some(progress), ..options() }).unwrap();
    classifier.classify(TEXTS).unwrap();
    assert_eq!(*told.lock().unwrap(), [(2, 5), (4, 5), (5, 5)]);
}
