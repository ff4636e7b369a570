//! The server: dialects, access, connections.

mod access;
mod body;
mod exchange;
mod inference_client;
mod openapi;
mod ranking;
mod server;
mod tasks;
mod tei;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::header,
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

use self::exchange::Kind;
pub use self::{
    access::{Keys, Origins},
    server::serve,
};
use super::{Problem, Service, Usage};

/// How the server meets its clients.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The keys that open the API.
    pub keys: Keys,
    /// Most bytes of a body.
    pub payload_limit: usize,
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Web pages from these origins may use the API.
    pub origins: Origins,
    /// How long the server goes on accepting requests after it said that it is not ready, so that load balancers learn of it.
    pub drain_delay: Duration,
    /// How long requests may take to end after that.
    pub drain_timeout: Duration,
}

/// What every endpoint knows.
#[derive(Clone)]
pub struct App {
    service: Arc<Service>,
    settings: Arc<HttpSettings>,
    /// Whether the server is about to end.
    draining: Arc<AtomicBool>,
}

impl App {
    /// Puts a service behind HTTP.
    pub fn new(service: Arc<Service>, settings: HttpSettings) -> Self {
        Self { service, settings: Arc::new(settings), draining: Arc::default() }
    }

    /// All endpoints.
    pub fn router(&self) -> Router {
        let predictions = Router::new()
            .route("/", post(inference_client::root))
            .route("/predict", post(tei::predict))
            .route("/rerank", post(tei::rerank))
            .route("/embed", post(tei::embed))
            .route("/v1/embeddings", post(tei::openai))
            .route("/v1/rerank", post(ranking::rerank))
            .route("/v2/rerank", post(ranking::rerank))
            .route("/ner", post(tasks::ner))
            .route("/zero_shot", post(tasks::zero_shot))
            .route("/answer", post(tasks::answer))
            .route("/fill_mask", post(tasks::fill_mask))
            .route_layer(from_fn_with_state(self.clone(), count));
        let closed = predictions
            .route("/tokenize", post(tei::tokenize))
            .route("/decode", post(tei::decode))
            .route("/info", get(tei::info))
            .route_layer(from_fn_with_state(self.clone(), admit));
        let open = Router::new()
            .route("/health", get(|| async { "alive" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/ui", get(|| async { Html(include_str!("page.html")) }))
            .route("/docs", get(|| async { Html(include_str!("docs.html")) }))
            .route("/api-doc/openapi.json", get(document));
        let router = closed
            .merge(open)
            .fallback(|| async { Problem::NotFound })
            .method_not_allowed_fallback(|| async { Problem::Method })
            .layer(DefaultBodyLimit::max(self.settings.payload_limit))
            .layer(CatchPanicLayer::custom(panicked));
        let router = match self.settings.origins.layer() {
            Some(layer) => router.layer(layer),
            None => router,
        };
        router.with_state(self.clone())
    }
}

/// The answer to a request in which the server panicked.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::Internal("the server panicked; the log says where".into()).into_response()
}

/// Lets those in who have a key.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match app.settings.keys.admit(authorization) {
        true => next.run(request).await,
        false => Problem::Unauthorized.into_response(),
    }
}

/// Counts requests for predictions. Those answered line by line count themselves at their end.
async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let extensions = response.extensions();
    let outcome = match (extensions.get::<Usage>(), extensions.get::<Kind>()) {
        (Some(usage), _) => Ok(usage),
        (None, Some(Kind(kind))) => Err(*kind),
        (None, None) => return response,
    };
    tracing::info!(
        path,
        status = response.status().as_u16(),
        milliseconds = started.elapsed().as_millis() as u64,
        "request"
    );
    app.service.metrics().request(started.elapsed(), outcome);
    response
}

/// Whether requests are welcome: a model is loaded and computes, and the server is not about to end.
async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    app.service.loaded()?.scheduler.check()?;
    match app.draining.load(Ordering::Relaxed) {
        true => Err(Problem::Unready("the server is about to end".into())),
        false => Ok("ready"),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let waiting = app.service.loaded().map_or(0, |loaded| loaded.scheduler.load().requests);
    let text = app.service.metrics().render(waiting);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn document(State(app): State<App>) -> Response {
    let loaded = app.service.loaded().ok();
    exchange::json(&openapi::document(loaded.as_ref().map(|loaded| &*loaded.model)))
}
