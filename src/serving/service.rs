//! The model that is served, and the way of a request through it: encode, wait, decode.

use std::{
    collections::HashSet,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use tokio::{sync::mpsc::UnboundedReceiver, task::block_in_place};

use super::{
    Metrics, Problem,
    model::{Model, Served, Task},
    scheduler::{Calibration, Failure, Part, Refusal, Scheduler, Sequence, Settings, Urgency, calibrate},
};
use crate::{Error, Result, batch::Encoding, checkpoint::locate, pipeline::PipelineOptions};

/// The length for which a model without a maximal length is made ready, in tokens.
const LONG: usize = 2048;

/// Which model is served, and how.
#[derive(Clone)]
pub struct ServiceOptions {
    /// Its folder, or its id on the Hugging Face Hub.
    pub model: String,
    /// The same of the tokenizer, if a folder of GLiNER has none.
    pub tokenizer: Option<String>,
    /// Its task; if none, the one of its head.
    pub task: Option<Task>,
    /// How it is run.
    pub pipeline: PipelineOptions,
    /// Tokens of a batch; if none, they are measured when the model is loaded.
    pub budget: Option<usize>,
    /// Tokens that may wait at a time.
    pub max_waiting: usize,
    /// Bytes of the cache of rows; 0 turns it off.
    pub cache_bytes: usize,
    /// Threads that turn texts into tokens.
    pub tokenization_threads: usize,
}

/// A loaded model with its queue.
pub struct Loaded {
    /// The model.
    pub model: Arc<Model>,
    /// Its queue.
    pub scheduler: Scheduler,
}

/// Serves one model at a time.
pub struct Service {
    options: ServiceOptions,
    loaded: RwLock<Option<Arc<Loaded>>>,
    /// Held while a model is loaded, so that none overtakes another: the last one to begin has the newest files.
    loading: Mutex<()>,
    tokenization: ThreadPool,
    metrics: Arc<Metrics>,
}

/// What a client wants beside the answer.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whether texts that are too long may be cut.
    pub truncate: bool,
    /// How urgent it is.
    pub urgency: Urgency,
}

/// What a request has cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Tokens of all sequences.
    pub tokens: usize,
    /// Texts that were cut.
    pub truncated: usize,
    /// Time to make tokens.
    pub tokenization: Duration,
    /// Time in the queue until its first batch began.
    pub queue: Duration,
    /// Time from the beginning of its first batch to the end of its last.
    pub inference: Duration,
}

impl Service {
    /// A service without a model yet.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn new(options: ServiceOptions, metrics: Arc<Metrics>) -> Result<Self> {
        let threads = options.tokenization_threads;
        let tokenization = ThreadPoolBuilder::new().num_threads(threads).build();
        let tokenization = tokenization.map_err(|error| Error::setting("tokenization threads", error.to_string()))?;
        Ok(Self { options, loaded: RwLock::new(None), loading: Mutex::new(()), tokenization, metrics })
    }

    /// Its options.
    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// Its figures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Loads the model beside the one that is served, proves it, and swaps them. Requests that wait are answered by the
    /// model that they were made for. If another thread is loading, this one waits for it.
    ///
    /// # Errors
    /// A model that cannot be loaded or does not answer; then nothing is changed.
    pub fn load(&self) -> Result<()> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let ServiceOptions { model, tokenizer, task, pipeline, budget, max_waiting, cache_bytes, .. } = &self.options;
        let folder = locate(model, None)?;
        let tokenizer = tokenizer.as_ref().map(|tokenizer| locate(tokenizer, None)).transpose()?;
        let task = task.map_or_else(|| Task::of_folder(&folder), Ok)?;
        let model = Arc::new(Model::open(&folder, tokenizer.as_deref(), task, pipeline.clone())?);
        model.prove()?;
        // Lays out what depends on the length, once and for all lengths.
        let longest = match model.runner().max_length() {
            usize::MAX => LONG,
            length => length,
        };
        let longest = model.sample(longest)?;
        model.forward(&[&longest])?;
        let Calibration { budget, rate } = match budget {
            Some(budget) => Calibration { budget: *budget, rate: 1000.0 },
            None => {
                let sample = |length: usize| model.sample(length.min(model.runner().max_length()));
                calibrate(|batch: &[&Encoding]| model.forward(batch), sample)?
            }
        };
        let (worker, metrics) = (model.clone(), self.metrics.clone());
        let settings = Settings { budget, rate, max_waiting: *max_waiting, cache_bytes: *cache_bytes };
        let scheduler =
            Scheduler::start(move |batch| worker.forward(batch), move |report| metrics.batch(&report), settings);
        self.replace(Loaded { model, scheduler });
        // Last: whoever waits for this line may ask at once.
        let computes = pipeline.precision.describe(&pipeline.device);
        tracing::info!(model = %folder.display(), %task, computes, budget, rate, "loaded");
        Ok(())
    }

    /// Serves another model from now on.
    pub(super) fn replace(&self, loaded: Loaded) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded));
    }

    /// The model that is served now.
    ///
    /// # Errors
    /// None was loaded yet.
    pub fn loaded(&self) -> Result<Arc<Loaded>, Problem> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone();
        loaded.ok_or_else(|| Problem::Unready("the model is being loaded".into()))
    }

    /// Refuses what has at least so many tokens, if they may never wait.
    ///
    /// # Errors
    /// More tokens than may wait.
    pub fn admit(&self, tokens: usize) -> Result<(), Problem> {
        let limit = self.options.max_waiting;
        match tokens > limit {
            true => Err(Refusal::TooLarge { tokens, limit }.into()),
            false => Ok(()),
        }
    }

    /// Makes tokens of requests and puts them into the queue, all or none.
    ///
    /// # Errors
    /// A model for another task, no request, texts that cannot be used, a deadline that has passed, or too much that waits.
    pub fn start<P: Served>(&self, requests: Vec<P::Request>, wanted: Wanted) -> Result<InFlight<P>, Problem> {
        let loaded = self.loaded()?;
        let pipeline = P::of(&loaded.model).ok_or_else(|| {
            Problem::Backend(format!("this model is for the task {}; it cannot {}", loaded.model.task(), P::DOES))
        })?;
        if requests.is_empty() {
            return Err(Problem::no_input());
        }
        let start = Instant::now();
        let encoded = self.encode(pipeline, &requests, wanted)?;
        let mut usage = Usage { tokenization: start.elapsed(), ..Usage::default() };
        for sequences in &encoded {
            let cut = sequences.iter().filter(|sequence| sequence.cut > 0);
            usage.truncated += cut.map(|sequence| sequence.text).collect::<HashSet<_>>().len();
            usage.tokens += sequences.iter().map(Encoding::len).sum::<usize>();
        }
        let places = (0..)
            .zip(&encoded)
            .flat_map(|(request, sequences)| (0..sequences.len()).map(move |sequence| (request, sequence)));
        let places: Vec<(usize, usize)> = places.collect();
        let sequences = encoded.iter().flatten().map(|encoding| Sequence::new(encoding.clone())).collect();
        let rows = encoded.iter().map(|sequences| vec![None; sequences.len()]).collect();
        let submitted = Instant::now();
        let parts = loaded.scheduler.submit(sequences, wanted.urgency)?;
        Ok(InFlight {
            loaded,
            requests,
            encoded,
            places,
            rows,
            parts,
            submitted,
            began: None,
            usage,
            pipeline: PhantomData,
        })
    }

    /// The sequences of each request. It stops at the first problem, because a short body can ask for many tokens.
    fn encode<P: Served>(
        &self,
        pipeline: &P,
        requests: &[P::Request],
        wanted: Wanted,
    ) -> Result<Vec<Vec<Encoding>>, Problem> {
        let tokens = AtomicUsize::new(0);
        let encode = |(index, request): (usize, &P::Request)| -> Result<Vec<Encoding>, Problem> {
            if wanted.urgency.is_late(Instant::now()) {
                return Err(Failure::Expired.into());
            }
            let sequences = pipeline
                .encode(request)
                .map_err(|error| Problem::of_encoding(&error.in_request(index, |text| P::name(index, text))))?;
            if !wanted.truncate {
                whole::<P>(index, &sequences, pipeline.runner().max_length())?;
            }
            let own: usize = sequences.iter().map(Encoding::len).sum();
            self.admit(tokens.fetch_add(own, Ordering::Relaxed) + own)?;
            Ok(sequences)
        };
        block_in_place(|| self.tokenization.install(|| requests.par_iter().enumerate().map(encode).collect()))
    }
}

/// Refuses a request if one of its texts was cut.
fn whole<P: Served>(index: usize, sequences: &[Encoding], max_length: usize) -> Result<(), Problem> {
    let Some(cut) = sequences.iter().find(|sequence| sequence.cut > 0) else { return Ok(()) };
    let (name, length) = (P::name(index, cut.text), cut.len() + cut.cut);
    let problem = format!("{name} has {length} tokens, but the model takes {max_length}");
    Err(Problem::Validation(format!("{problem}: shorten it, or send `truncate: true`")))
}

/// Requests on their way. Dropping it takes them out of the queue.
pub struct InFlight<P: Served> {
    loaded: Arc<Loaded>,
    requests: Vec<P::Request>,
    encoded: Vec<Vec<Encoding>>,
    /// Request and sequence of each part.
    places: Vec<(usize, usize)>,
    /// The rows of each request that came.
    rows: Vec<Vec<Option<Arc<[f32]>>>>,
    parts: UnboundedReceiver<Part>,
    submitted: Instant,
    /// When its first batch began.
    began: Option<Instant>,
    usage: Usage,
    pipeline: PhantomData<P>,
}

impl<P: Served> InFlight<P> {
    /// What the requests have cost so far.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The next answer, with the index of its request; none after the last.
    ///
    /// # Errors
    /// What the model failed with, or a deadline that passed.
    pub async fn next(&mut self) -> Option<(usize, Result<P::Answer, Problem>)> {
        loop {
            let Part { place, row } = self.parts.recv().await?;
            let (index, sequence) = self.places[place];
            // It has failed already.
            if self.rows[index].is_empty() {
                continue;
            }
            let row = match row {
                Ok(row) => row,
                Err(failure) => {
                    self.rows[index].clear();
                    return Some((index, Err(failure.into())));
                }
            };
            let (began, ended) = row.computed;
            let began = *self.began.get_or_insert(began);
            self.usage.queue = began.saturating_duration_since(self.submitted);
            self.usage.inference = self.usage.inference.max(ended.saturating_duration_since(began));
            self.rows[index][sequence] = Some(row.values);
            if self.rows[index].iter().all(Option::is_some) {
                let rows = std::mem::take(&mut self.rows[index]);
                return Some((index, self.decode(index, &rows)));
            }
        }
    }

    fn decode(&self, index: usize, rows: &[Option<Arc<[f32]>>]) -> Result<P::Answer, Problem> {
        let pipeline = P::of(&self.loaded.model).expect("it encoded the request");
        let answer = block_in_place(|| {
            let rows = rows.iter().flatten().map(|row| row.to_vec()).collect();
            pipeline.decode(&self.requests[index], &self.encoded[index], rows)
        });
        let answer = answer.map_err(|error| error.in_request(index, |text| P::name(index, text)));
        answer.map_err(|error| match error {
            Error::Text { .. } => Problem::Validation(error.to_string()),
            _ => Problem::Backend(error.to_string()),
        })
    }

    /// All answers in the order of the requests.
    ///
    /// # Errors
    /// The first problem.
    pub async fn all(&mut self) -> Result<Vec<P::Answer>, Problem> {
        let mut answers: Vec<Option<P::Answer>> = self.requests.iter().map(|_| None).collect();
        while let Some((index, answer)) = self.next().await {
            answers[index] = Some(answer?);
        }
        let answers: Option<Vec<P::Answer>> = answers.into_iter().collect();
        answers.ok_or_else(|| Problem::Internal("the model thread ended before all was computed".into()))
    }
}
