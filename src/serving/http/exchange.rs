//! What all endpoints share: headers, answers and problems.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;

use super::{App, body::Inputs};
use crate::serving::{
    InFlight, Problem, Served, Usage, Wanted,
    scheduler::{Priority, Urgency},
};

const NDJSON: &str = "application/x-ndjson";

/// One answer, or a list of them.
#[derive(Serialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One, not in a list.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// A list in the form in which the question was asked.
    pub fn from_list(mut list: Vec<T>, one: bool) -> Self {
        match one && list.len() == 1 {
            true => Self::One(list.remove(0)),
            false => Self::Many(list),
        }
    }
}

/// What a client says in headers: `x-deadline-ms`, the milliseconds within which an answer is of use; `x-priority`,
/// `interactive` or `bulk`; `accept: application/x-ndjson` for one line an answer, as they come.
#[derive(Clone, Copy)]
pub struct Call {
    started: Instant,
    urgency: Urgency,
    ndjson: bool,
}

impl FromRequestParts<App> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let started = Instant::now();
        let invalid =
            |name: &str, expected: &str| Problem::Validation(format!("the header {name} has to be {expected}"));
        let deadline = match parts.headers.get("x-deadline-ms") {
            None => None,
            Some(value) => {
                let milliseconds = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
                let expected = "a number of milliseconds";
                let milliseconds = milliseconds.ok_or_else(|| invalid("x-deadline-ms", expected))?;
                Some(started + Duration::from_millis(milliseconds.into()))
            }
        };
        let priority = match parts.headers.get("x-priority").map(HeaderValue::as_bytes) {
            None | Some(b"interactive") => Priority::Interactive,
            Some(b"bulk") => Priority::Bulk,
            Some(_) => return Err(invalid("x-priority", "`interactive` or `bulk`")),
        };
        let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let ndjson = accept.is_some_and(|accept| accept.contains(NDJSON));
        Ok(Self { started, urgency: Urgency { deadline, priority }, ndjson })
    }
}

/// A line of an answer in parts.
#[derive(Serialize)]
struct Line<T> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl App {
    /// Refuses texts with so many labels that their tokens could never wait: each label is at least one in each text. A short body
    /// can ask for so many that copies of the labels alone would take all memory.
    pub fn admit_labels<T>(&self, inputs: &Inputs<T>, labels: &[String]) -> Result<(), Problem> {
        self.service.admit(inputs.count().saturating_mul(labels.len()))
    }

    /// Answers requests: `item` makes what is said of one answer, by the index of its request, and `whole` the body of them
    /// all. If the client asks for lines, each item is one.
    pub async fn respond<P: Served, T: Serialize + Send + 'static, W: Serialize>(
        &self,
        call: Call,
        requests: Vec<P::Request>,
        truncate: bool,
        item: impl Fn(usize, P::Answer) -> T + Send + 'static,
        whole: impl FnOnce(Vec<T>, &Usage) -> W,
    ) -> Result<Response, Problem> {
        let mut in_flight = self.service.start::<P>(requests, Wanted { truncate, urgency: call.urgency })?;
        if call.ndjson {
            return Ok(self.lines(call, in_flight, item));
        }
        let answers = in_flight.all().await?.into_iter().enumerate();
        let items = answers.map(|(index, answer)| item(index, answer)).collect();
        let usage = *in_flight.usage();
        let mut response = json(&whole(items, &usage));
        response.headers_mut().extend(usage_headers(&usage, call.started));
        response.extensions_mut().insert(usage);
        Ok(response)
    }

    fn lines<P: Served, T: Serialize + Send + 'static>(
        &self,
        call: Call,
        in_flight: InFlight<P>,
        item: impl Fn(usize, P::Answer) -> T + Send + 'static,
    ) -> Response {
        let metrics = self.service.metrics().clone();
        let state = (in_flight, item, Ok(()), metrics);
        let lines = stream::unfold(state, move |(mut in_flight, item, outcome, metrics)| async move {
            let Some((index, answer)) = in_flight.next().await else {
                metrics.request(call.started.elapsed(), outcome.map(|()| in_flight.usage()));
                return None;
            };
            let (line, outcome) = match answer {
                Ok(answer) => (Line { index, result: Some(item(index, answer)), error: None }, outcome),
                Err(problem) => {
                    let error = Some(problem.to_string());
                    (Line { index, result: None, error }, Err(problem.kind()))
                }
            };
            let mut line = serde_json::to_vec(&line).unwrap_or_default();
            line.push(b'\n');
            Some((Ok::<_, Infallible>(line), (in_flight, item, outcome, metrics)))
        });
        ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
    }
}

/// A JSON answer.
pub fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => Problem::Internal(format!("the answer is not JSON: {error}")).into_response(),
    }
}

/// What a request has cost, in milliseconds and tokens, by the names of text-embeddings-inference.
fn usage_headers(usage: &Usage, started: Instant) -> HeaderMap {
    let milliseconds = |time: Duration| HeaderValue::from(time.as_millis() as u64);
    let count = |count: usize| HeaderValue::from(count as u64);
    HeaderMap::from_iter(
        [
            ("x-compute-time", milliseconds(usage.tokenization + usage.inference)),
            ("x-total-time", milliseconds(started.elapsed())),
            ("x-tokenization-time", milliseconds(usage.tokenization)),
            ("x-queue-time", milliseconds(usage.queue)),
            ("x-inference-time", milliseconds(usage.inference)),
            ("x-compute-tokens", count(usage.tokens)),
            ("x-truncated", count(usage.truncated)),
        ]
        .map(|(name, value)| (header::HeaderName::from_static(name), value)),
    )
}

/// The kind of a problem, as an extension of its answer, for the figures.
#[derive(Clone, Copy)]
pub struct Kind(pub &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
            error_type: &'static str,
        }
        let (status, kind) = (StatusCode::from_u16(self.status()).expect("a status"), self.kind());
        let mut response = json(&Body { error: self.to_string(), error_type: kind });
        *response.status_mut() = status;
        if let Self::Overloaded { retry_after, .. } = self {
            let seconds = HeaderValue::from(retry_after.as_secs() + 1);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(Kind(kind));
        response
    }
}
