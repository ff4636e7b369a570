//! The order in which sequences are computed, without any network: one model thread, and batches that are made when the last
//! one has ended, never by a timer.
//!
//! A request is one or several sequences. It is admitted whole or refused whole, by the tokens that wait
//! ([`Settings::max_waiting`]). Batches mix the sequences of all requests up to a budget of tokens, and requests take turns,
//! so that a short one need not wait for all of a long one. Equal sequences that wait at the same time are
//! computed once. A request whose receiver is dropped, or whose deadline has passed, leaves the queue.

mod cache;
mod calibration;
mod queue;
#[cfg(test)]
mod tests;

use std::{
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use self::calibration::{Calibration, calibrate};
use self::{cache::Cache, queue::Queue};
use crate::{Result, batch::Encoding};

/// The arithmetic: one batch of sequences to one row for each, see
/// [`Pipeline::forward`](crate::pipeline::Pipeline::forward).
type Forward = dyn Fn(&[&Encoding]) -> Result<Vec<Vec<f32>>> + Send + Sync;

/// A sequence that can be compared: equal ones have equal rows.
#[derive(Clone, Debug)]
pub struct Sequence(Arc<Encoding>);

impl Sequence {
    /// Takes what a pipeline made.
    pub fn new(encoding: Encoding) -> Self {
        Self(Arc::new(encoding))
    }

    /// Number of its tokens.
    pub fn tokens(&self) -> usize {
        self.0.len()
    }

    /// What its row depends on.
    fn identity(&self) -> (&[u32], &[u32], &[Option<u32>]) {
        (&self.0.ids, &self.0.type_ids, &self.0.word_ids)
    }
}

impl PartialEq for Sequence {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Sequence {}

impl Hash for Sequence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Two classes of requests. The first goes before the second in each round, and may compute eight times as much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody is in a hurry.
    Bulk,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Urgency {
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Its class.
    pub priority: Priority,
}

impl Urgency {
    /// Whether the answer is of no use any more.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// The row of one sequence, and when it was computed.
#[derive(Clone, Debug)]
pub struct Row {
    /// The raw numbers, shared by all who wait for them: those of a mask are as many as the vocabulary has words.
    pub values: Arc<[f32]>,
    /// When its batch began, and ended; the same for a row that was known.
    pub computed: (Instant, Instant),
}

/// Why there is no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The deadline came first.
    #[error("the deadline passed before the request was computed")]
    Expired,
    /// The model refused the sequence.
    #[error("{0}")]
    Model(String),
    /// The model panicked.
    #[error("the model panicked; the log says where")]
    Panicked,
}

/// The row of one of a request's sequences.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which sequence of the request it is, from 0.
    pub place: usize,
    /// Its row, or why there is none.
    pub row: Result<Row, Failure>,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It has more tokens than may ever wait.
    #[error("it has at least {tokens} tokens, but at most {limit} may wait at a time: send it in parts")]
    TooLarge {
        /// Tokens of the request, or of so much of it that the rest does not matter.
        tokens: usize,
        /// Tokens that may wait.
        limit: usize,
    },
    /// Too much waits before it.
    #[error("{waiting} tokens wait already, of at most {limit}: try again later")]
    Overloaded {
        /// Tokens that wait.
        waiting: usize,
        /// Tokens that may wait.
        limit: usize,
        /// How long it takes until there is room, by the rate that was measured.
        retry_after: Duration,
    },
    /// A panic has ended the model thread.
    #[error("the model thread has ended in a panic; the log says where, and SIGHUP loads the model again")]
    Ended,
}

/// What a scheduler may use.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tokens of a batch.
    pub budget: usize,
    /// Tokens a second that are assumed until batches were measured.
    pub rate: f64,
    /// Tokens that may wait at a time.
    pub max_waiting: usize,
    /// Bytes of the cache of rows; 0 turns it off.
    pub cache_bytes: usize,
}

/// What a batch was.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport {
    /// Its sequences.
    pub sequences: usize,
    /// Its tokens.
    pub tokens: usize,
    /// How long it took.
    pub time: Duration,
}

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait, whole or in part.
    pub requests: usize,
    /// Their tokens.
    pub tokens: usize,
}

/// The handle of a model thread. The thread ends when the handle is dropped and nothing waits. If it ends before, in a panic
/// (which would be a bug: those of the model are [caught](Failure::Panicked)), all that waits fails.
pub struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    max_waiting: usize,
}

struct State {
    queue: Queue,
    cache: Cache,
    rate: f64,
    /// Whether the handle was dropped.
    closed: bool,
    /// Whether a panic has ended the model thread.
    ended: bool,
}

impl State {
    fn check(&self) -> Result<(), Refusal> {
        match self.ended {
            true => Err(Refusal::Ended),
            false => Ok(()),
        }
    }
}

impl Shared {
    /// The state is changed by whole steps, so that a thread that panicked leaves none half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scheduler {
    /// Starts the model thread. `report` is called after each batch.
    pub fn start(
        forward: impl Fn(&[&Encoding]) -> Result<Vec<Vec<f32>>> + Send + Sync + 'static,
        report: impl Fn(BatchReport) + Send + 'static,
        Settings { budget, rate, max_waiting, cache_bytes }: Settings,
    ) -> Self {
        let (queue, cache) = (Queue::new(budget), Cache::new(cache_bytes));
        let state = State { queue, cache, rate, closed: false, ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), max_waiting });
        let worker = shared.clone();
        thread::spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| worker.work(&forward, report))).is_err() {
                worker.end();
            }
        });
        Self { shared }
    }

    /// Adds a request. Its rows come one by one, in any order; dropping the receiver takes the request out of the queue.
    ///
    /// # Errors
    /// More tokens than may wait, or a model thread that has ended.
    pub fn submit(&self, sequences: Vec<Sequence>, urgency: Urgency) -> Result<UnboundedReceiver<Part>, Refusal> {
        let tokens: usize = sequences.iter().map(Sequence::tokens).sum();
        let limit = self.shared.max_waiting;
        if tokens > limit {
            return Err(Refusal::TooLarge { tokens, limit });
        }
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.check()?;
        let known: Option<Vec<Arc<[f32]>>> = sequences.iter().map(|sequence| state.cache.get(sequence)).collect();
        if let Some(rows) = known {
            let (reply, parts) = unbounded_channel();
            for (place, values) in rows.into_iter().enumerate() {
                let _ = reply.send(Part { place, row: Ok(Row { values, computed: (now, now) }) });
            }
            return Ok(parts);
        }
        let waiting = state.queue.tokens();
        if waiting + tokens > limit {
            let retry_after = Duration::from_secs_f64((waiting + tokens - limit) as f64 / state.rate);
            return Err(Refusal::Overloaded { waiting, limit, retry_after });
        }
        let parts = state.queue.add(sequences, urgency, now);
        self.shared.wake.notify_one();
        Ok(parts)
    }

    /// Whether anything will be computed.
    ///
    /// # Errors
    /// A model thread that has ended.
    pub fn check(&self) -> Result<(), Refusal> {
        self.shared.lock().check()
    }

    /// What waits now.
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load { requests: state.queue.len(), tokens: state.queue.tokens() }
    }

    /// Tokens of a batch.
    pub fn budget(&self) -> usize {
        self.shared.lock().queue.budget()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    /// The model thread.
    fn work(&self, forward: &Forward, report: impl Fn(BatchReport)) {
        while let Some(batch) = self.wait_for_batch() {
            let start = Instant::now();
            let rows = compute(forward, &batch);
            let end = Instant::now();
            let (tokens, time) = (batch.iter().map(Sequence::tokens).sum(), end - start);

            let mut state = self.lock();
            // The mean of the last batches, the newest counting most.
            state.rate += 0.1 * (tokens as f64 / time.as_secs_f64().max(1e-9) - state.rate);
            for (sequence, values) in batch.iter().zip(rows) {
                if let Ok(values) = &values {
                    state.cache.put(sequence, values);
                }
                state.queue.deliver(sequence, &values.map(|values| Row { values, computed: (start, end) }));
            }
            drop(state);
            report(BatchReport { sequences: batch.len(), tokens, time });
        }
    }

    /// After a panic: whoever waits learns of it, and nobody begins to wait.
    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.queue.fail(&Failure::Panicked);
    }

    /// The next batch, as soon as there is one; none when the handle was dropped.
    fn wait_for_batch(&self) -> Option<Vec<Sequence>> {
        let mut state = self.lock();
        loop {
            let batch = state.queue.next_batch(Instant::now());
            match (batch.is_empty(), state.closed) {
                (false, _) => return Some(batch),
                (true, true) => return None,
                (true, false) => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Runs a batch. If it fails, its sequences are run one by one, so that only those fail whose fault it is.
fn compute(forward: &Forward, batch: &[Sequence]) -> Vec<Result<Arc<[f32]>, Failure>> {
    let encodings: Vec<&Encoding> = batch.iter().map(|sequence| &*sequence.0).collect();
    match (guarded(forward, &encodings), &encodings[..]) {
        (Ok(rows), _) => rows.into_iter().map(|row| Ok(row.into())).collect(),
        (Err(failure), [_]) => vec![Err(failure)],
        (Err(_), several) => {
            several.iter().map(|encoding| guarded(forward, &[encoding]).map(|mut rows| rows.remove(0).into())).collect()
        }
    }
}

/// Runs the model; a panic becomes a failure.
fn guarded(forward: &Forward, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>, Failure> {
    match catch_unwind(AssertUnwindSafe(|| forward(batch))) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(Failure::Model(error.to_string())),
        Err(_) => Err(Failure::Panicked),
    }
}
