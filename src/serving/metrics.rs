//! Figures for Prometheus, by the names of text-embeddings-inference, so that its dashboards go on working.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, exponential_buckets,
};

use super::{Problem, scheduler::BatchReport, service::Usage};

/// All figures; they are there, as zeros, before the first request.
pub struct Metrics {
    registry: Registry,
    requests: IntCounter,
    successes: IntCounter,
    failures: IntCounterVec,
    duration: Histogram,
    tokenization: Histogram,
    queue: Histogram,
    inference: Histogram,
    request_tokens: Histogram,
    queue_size: IntGauge,
    batch_size: Histogram,
    batch_tokens: Histogram,
    batch_duration: Histogram,
    truncated: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("each name once");
            counter
        };
        let histogram = |name: &str, help: &str, first: f64, count: usize| {
            let buckets = exponential_buckets(first, 2.0, count).expect("rising buckets");
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets));
            let histogram = histogram.expect("a valid name");
            registry.register(Box::new(histogram.clone())).expect("each name once");
            histogram
        };
        // From 0.5 ms to 4 minutes.
        let seconds = |name: &str, help: &str| histogram(name, help, 0.0005, 20);
        let failures = Opts::new("te_request_failure", "Requests without an answer, by the reason");
        let failures = IntCounterVec::new(failures, &["err"]).expect("a valid name");
        registry.register(Box::new(failures.clone())).expect("each name once");
        for kind in Problem::KINDS {
            failures.with_label_values(&[kind]);
        }
        let queue_size = IntGauge::new("te_queue_size", "Requests that wait").expect("a valid name");
        registry.register(Box::new(queue_size.clone())).expect("each name once");
        Self {
            requests: counter("te_request_count", "Requests for predictions"),
            successes: counter("te_request_success", "Requests that were answered"),
            failures,
            duration: seconds("te_request_duration", "Seconds from a request to its answer"),
            tokenization: seconds("te_request_tokenization_duration", "Seconds to make tokens of a request"),
            queue: seconds("te_request_queue_duration", "Seconds that a request waited for its first batch"),
            inference: seconds(
                "te_request_inference_duration",
                "Seconds from a request's first batch to the end of its last",
            ),
            request_tokens: histogram("te_request_input_length", "Tokens of a request", 1.0, 18),
            queue_size,
            batch_size: histogram("te_batch_next_size", "Sequences of a batch", 1.0, 14),
            batch_tokens: histogram("te_batch_next_tokens", "Tokens of a batch", 1.0, 18),
            batch_duration: seconds("te_batch_inference_duration", "Seconds to compute a batch"),
            truncated: counter("te_request_truncated", "Texts that were cut"),
            registry,
        }
    }
}

impl Metrics {
    /// Counts a request for predictions and its outcome: what it has cost, or the [kind](Problem::kind) of its problem.
    pub fn request(&self, time: Duration, outcome: Result<&Usage, &str>) {
        self.requests.inc();
        self.duration.observe(time.as_secs_f64());
        match outcome {
            Ok(usage) => {
                self.successes.inc();
                self.tokenization.observe(usage.tokenization.as_secs_f64());
                self.queue.observe(usage.queue.as_secs_f64());
                self.inference.observe(usage.inference.as_secs_f64());
                self.request_tokens.observe(usage.tokens as f64);
                self.truncated.inc_by(usage.truncated as u64);
            }
            Err(kind) => self.failures.with_label_values(&[kind]).inc(),
        }
    }

    /// Counts a batch.
    pub fn batch(&self, report: &BatchReport) {
        self.batch_size.observe(report.sequences as f64);
        self.batch_tokens.observe(report.tokens as f64);
        self.batch_duration.observe(report.time.as_secs_f64());
    }

    /// All figures as Prometheus reads them.
    pub fn render(&self, waiting: usize) -> String {
        self.queue_size.set(waiting as i64);
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("figures are text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_figures_are_there_before_the_first_request_and_each_is_counted_once() {
        let metrics = Metrics::default();
        let text = metrics.render(0);
        for name in ["te_request_count 0", "te_request_success 0", "te_queue_size 0", "te_batch_next_size_count 0"] {
            assert!(text.contains(name), "{name}\n{text}");
        }
        assert!(text.contains("te_request_failure{err=\"Overloaded\"} 0"), "{text}");
        metrics.request(Duration::from_millis(3), Ok(&Usage { tokens: 7, truncated: 2, ..Usage::default() }));
        metrics.request(Duration::from_millis(3), Err(Problem::Unauthorized.kind()));
        metrics.batch(&BatchReport { sequences: 3, tokens: 70, time: Duration::from_millis(20) });
        let text = metrics.render(4);
        for line in [
            "te_request_count 2",
            "te_request_success 1",
            "te_request_failure{err=\"Unauthorized\"} 1",
            "te_request_duration_count 2",
            "te_request_input_length_sum 7",
            "te_request_truncated 2",
            "te_batch_next_tokens_sum 70",
            "te_queue_size 4",
        ] {
            assert_eq!(text.lines().filter(|known| *known == line).count(), 1, "{line}\n{text}");
        }
    }
}
