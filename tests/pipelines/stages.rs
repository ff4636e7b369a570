//! The three steps of a pipeline, taken one by one with the sequences of all requests in one batch.

use std::slice::from_ref;

use deberta_burn::{
    heads::{MaskedLmLayout, QuestionAnswering, TokenClassification},
    pipeline::{
        AnswerOptions, AnswerRequest, Classifier, ClassifyRequest, EmbedRequest, Embedder, FillMask, FillRequest,
        Pipeline, QuestionAnswerer, RankRequest, Reranker, TagOptions, TagRequest, TokenTagger, ZeroShot,
        ZeroShotOptions, ZeroShotRequest,
    },
    tokenizer::{Encoding, Text},
};
use serde::Serialize;
use serde_json::{Value, to_value};

use crate::{
    TEXTS, TOLERANCE, long_text, masked_lm, options, question, sequence,
    support::{config, folder},
};

/// Whether two answers are the same but for rounding.
fn close(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
            (left - right).abs() <= f64::from(TOLERANCE)
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| close(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(key, left)| close(left, &right[key]))
        }
        _ => left == right,
    }
}

/// Answers all requests together by the single steps, and each by itself in one go.
fn check<P: Pipeline<Answer: Serialize>>(pipeline: &P, requests: &[P::Request]) {
    let encoded: Vec<Vec<Encoding>> = requests.iter().map(|request| pipeline.encode(request).unwrap()).collect();
    let batch: Vec<&Encoding> = encoded.iter().flatten().collect();
    let mut rows = pipeline.forward(&batch).unwrap().into_iter();
    for (request, encodings) in requests.iter().zip(&encoded) {
        let own = rows.by_ref().take(encodings.len()).collect();
        let answer = to_value(pipeline.decode(request, encodings, own).unwrap()).unwrap();
        let alone = to_value(pipeline.run(from_ref(request)).unwrap().remove(0)).unwrap();
        assert!(close(&answer, &alone), "{answer}\n{alone}");
    }
}

#[test]
fn steps_with_mixed_requests_give_each_the_answer_that_it_gets_alone() {
    let long = long_text();
    let texts = TEXTS.into_iter().chain([long.as_str()]);

    let model = sequence(config(&["entailment", "contradiction"]));
    let owned: Vec<_> = texts.clone().map(|text| Text::from(text.to_owned())).collect();
    let requests: Vec<_> = owned
        .iter()
        .cloned()
        .zip([false, true].into_iter().cycle())
        .map(|(text, raw_scores)| ClassifyRequest { text, raw_scores })
        .collect();
    check(&Classifier::from_folder(&model, options()).unwrap(), &requests);
    let requests: Vec<_> =
        owned.into_iter().map(|text| EmbedRequest { text, dimensions: None, normalize: true }).collect();
    check(&Embedder::from_folder(&model, options()).unwrap(), &requests);
    let request = |text: &str, candidates: &[&str]| ZeroShotRequest {
        text: text.into(),
        candidates: candidates.iter().map(|&candidate| candidate.into()).collect(),
        options: ZeroShotOptions::default(),
    };
    let requests = [request("war", &["law", "people", "a"]), request(&long, &["peace"]), request("a", &["b", "c"])];
    check(&ZeroShot::from_folder(&model, options()).unwrap(), &requests);
    let request = |passages: &[&str]| RankRequest::new("law", passages.iter().map(|&passage| passage.into()).collect());
    check(&Reranker::from_folder(&model, options()).unwrap(), &[request(&TEXTS), request(&[&long]), request(&["a"])]);

    let model = masked_lm(MaskedLmLayout::EnhancedMaskDecoder);
    let requests = ["[MASK] of nature", "the [MASK] and the [MASK]", "a [MASK]"];
    let requests = requests.map(|text| FillRequest { text: text.into(), top_k: 3 });
    check(&FillMask::from_folder(&model, options()).unwrap(), &requests);

    let model = folder(config(&["A", "O"]), TokenClassification::new);
    let requests: Vec<_> = texts.map(|text| TagRequest { text: text.into(), options: TagOptions::default() }).collect();
    check(&TokenTagger::from_folder(&model, options()).unwrap(), &requests);

    let model = folder(config(&[]), QuestionAnswering::new);
    let questions = [question("who", "the people"), question("what", &long), question("a", "b")];
    let requests = questions.map(|question| AnswerRequest { question, options: AnswerOptions::default() });
    check(&QuestionAnswerer::from_folder(&model, options()).unwrap(), &requests);
}
