//! Serves a DeBERTa checkpoint over HTTP.
//!
//! ```sh
//! cargo run --release --features serve --bin deberta-serve
//! curl 127.0.0.1:3000/fill_mask -d '{"inputs": "She opened the [MASK] and went out."}'
//! ```
//!
//! docs/serving.md says what it answers, and how to run it.

#[path = "../../examples/common/allocator.rs"]
mod allocator;
#[path = "../../examples/common/precision.rs"]
mod precision;

use std::{
    fs,
    io::{IsTerminal, stderr},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory, FromArgMatches, Parser, builder::RangedU64ValueParser};
use deberta_burn::{
    Error, Result,
    device::{device, one_thread_a_core},
    pipeline::PipelineOptions,
    serving::{
        Metrics, Service, ServiceOptions, Task,
        http::{App, HttpSettings, Keys, Origins, serve},
    },
};
use precision::PrecisionArgs;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::spawn_blocking,
};
use tracing_subscriber::EnvFilter;

/// Serve a DeBERTa checkpoint over HTTP: labels, entities, answers, words, vectors, rankings
///
/// SIGTERM ends the server when all requests are answered; SIGHUP loads the model's folder again. Every flag is also an
/// environment variable: DEBERTA_MAX_LENGTH for --max-length.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Checkpoint folder, or a repository of the Hugging Face Hub (owner/name; feature `hub`)
    #[arg(long, value_name = "DIR", default_value = "models/deberta-tiny")]
    model: String,

    /// The same of the tokenizer, if a GLiNER folder has none
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<String>,

    /// What the model is for [default: what its head is for]
    #[arg(long, value_enum)]
    task: Option<Task>,

    /// flex, ndarray, cuda, vulkan, wgpu or metal; :N for the N-th of its kind
    #[arg(long, default_value = "flex")]
    device: String,

    #[command(flatten)]
    precision: PrecisionArgs,

    /// Most tokens of one input, special tokens included [default: what the model was trained with]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,

    /// Most tokens of a batch; a longer text is a batch of its own [default: measured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_tokens: Option<u32>,

    /// Most tokens that may wait at a time; requests beyond that are refused (429)
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = up_to(usize::MAX))]
    max_waiting_tokens: usize,

    /// Bytes of the cache of outputs by tokens; 0 turns it off
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    cache_bytes: usize,

    /// Threads that turn texts into tokens
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = up_to(usize::MAX))]
    tokenization_threads: usize,

    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// Most bytes of a request's body
    #[arg(long, value_name = "BYTES", default_value_t = 2_000_000, value_parser = up_to(usize::MAX))]
    payload_limit: usize,

    /// Most connections at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = up_to(Semaphore::MAX_PERMITS))]
    max_connections: usize,

    /// Keys that open the API, separated by commas [default: it is open]
    #[arg(long, value_name = "KEYS", value_delimiter = ',', hide_env_values = true)]
    api_key: Vec<String>,

    /// File of such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Origins whose web pages may use the API, separated by commas, or * [default: none]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    cors_allow_origin: Vec<String>,

    /// Seconds between "not ready" and the last accepted request, after SIGTERM
    #[arg(long, value_name = "S", default_value_t = 0)]
    drain_delay: u64,

    /// Seconds that requests may take to end after that
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain_timeout: u64,

    /// Log lines as JSON objects
    #[arg(long)]
    json_logs: bool,
}

/// Numbers from 1 up to this one.
fn up_to(most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::from(1..=most as u64)
}

impl Args {
    fn keys(&self) -> Result<Keys> {
        let file = match &self.api_key_file {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
                // An empty file would open the API to all.
                match text.trim().is_empty() {
                    true => return Err(Error::file(path, "it holds no API key, expected one a line")),
                    false => text,
                }
            }
            None => String::new(),
        };
        let keys = Keys::new(file.lines().chain(self.api_key.iter().map(String::as_str)));
        // So would an empty flag.
        if keys.is_empty() && !self.api_key.is_empty() {
            let problem = "it is empty, expected a key; leave it out to open the API to all";
            return Err(Error::setting("--api-key", problem));
        }
        Ok(keys)
    }

    fn settings(&self) -> Result<HttpSettings> {
        Ok(HttpSettings {
            keys: self.keys()?,
            payload_limit: self.payload_limit,
            max_connections: self.max_connections,
            origins: Origins::new(&self.cors_allow_origin)?,
            drain_delay: Duration::from_secs(self.drain_delay),
            drain_timeout: Duration::from_secs(self.drain_timeout),
        })
    }

    fn service(&self) -> Result<ServiceOptions> {
        let (device, precision) = (device(&self.device)?, self.precision.precision()?);
        Ok(ServiceOptions {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            task: self.task,
            pipeline: PipelineOptions { precision, max_length: self.max_length, ..PipelineOptions::new(device) },
            budget: self.batch_tokens.map(|tokens| tokens as usize),
            max_waiting: self.max_waiting_tokens,
            cache_bytes: self.cache_bytes,
            tokenization_threads: self.tokenization_threads,
        })
    }
}

/// The flags, each of them also an environment variable: `DEBERTA_MAX_LENGTH` for `--max-length`.
fn command() -> clap::Command {
    Args::command().mut_args(|argument| {
        let variable = format!("DEBERTA_{}", argument.get_id().as_str().to_uppercase());
        argument.env(variable)
    })
}

fn main() -> ExitCode {
    let args = Args::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    if args.json_logs {
        log.json().init();
    } else {
        log.init();
    }
    one_thread_a_core();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.map_err(Error::io("start", "the threads of the server")).and_then(|runtime| {
        let ended = runtime.block_on(run(args));
        // Dropping it would wait for a model that is being loaded.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let settings = args.settings()?;
    let service = Arc::new(Service::new(args.service()?, Arc::new(Metrics::default()))?);
    let address = args.listen;
    let error = |error| Error::io("listen at", address.to_string())(error);
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;

    let signal = |kind| signal(kind).map_err(Error::io("wait for", "signals"));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    // Only now: whoever waits for this line may send one.
    tracing::info!(%address, "listening");

    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
    };
    let server = serve(App::new(service.clone(), settings), listener, stop);
    tokio::pin!(server);
    let mut loading = load(service.clone());
    let mut first = true;
    loop {
        tokio::select! {
            drained = &mut server => {
                match drained {
                    true => tracing::info!("all requests were answered"),
                    false => tracing::warn!("the drain timeout ended requests"),
                }
                return Ok(());
            }
            loaded = &mut loading, if first => {
                first = false;
                loaded.unwrap_or_else(|error| Err(Error::input("model", error.to_string())))?;
            }
            _ = hang_up.recv() => {
                let again = load(service.clone());
                tokio::spawn(async move {
                    match again.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::error!(%error, "the model stays as it was"),
                        Err(error) => tracing::error!(%error, "the model stays as it was"),
                    }
                });
            }
        }
    }
}

/// Loads the model on a thread of its own.
fn load(service: Arc<Service>) -> tokio::task::JoinHandle<Result<()>> {
    spawn_blocking(move || service.load())
}
