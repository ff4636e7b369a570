//! When requests arrive, and what they ask.

use std::{
    f64::consts::TAU,
    net::SocketAddr,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use deberta_burn::data::Random;
use serde_json::{Value, json};

use crate::client;

/// Requests under way at a time; more than any server here answers within the limit.
const CONNECTIONS: usize = 512;

const WORDS: [&str; 16] = [
    "the",
    "film",
    "a",
    "story",
    "of",
    "people",
    "who",
    "never",
    "found",
    "what",
    "they",
    "wanted",
    "is",
    "slow",
    "but",
    "beautiful",
];

/// From a request's arrival to the end of its answer.
pub type Outcome = Result<Duration>;

/// The lengths of texts, in words: lognormal, as those of people are about.
#[derive(Clone, Copy)]
pub struct Lengths {
    pub median: f64,
    pub sigma: f64,
    pub longest: usize,
}

impl Lengths {
    fn draw(&self, random: &mut Random) -> usize {
        // Box and Muller; 1 - u is never 0.
        let normal = (-2.0 * (1.0 - random.uniform()).ln()).sqrt() * (TAU * random.uniform()).cos();
        let words = (self.median * (self.sigma * normal).exp()).round();
        (words as usize).clamp(1, self.longest)
    }
}

fn text(words: usize, random: &mut Random) -> String {
    (0..words).map(|_| WORDS[random.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

/// A request of the heavy client.
pub fn heavy(texts: usize, index: u64) -> Value {
    let mut random = Random::new(&[index]);
    let texts: Vec<[String; 1]> = (0..texts).map(|_| [text(200, &mut random)]).collect();
    json!({ "inputs": texts })
}

/// Requests by their time of arrival.
pub struct Traffic(Vec<(Duration, Value)>);

impl Traffic {
    /// Poisson arrivals of this rate for some seconds; the same key is the same traffic.
    pub fn new(rate: f64, seconds: u64, lengths: Lengths, key: &[u64]) -> Self {
        let mut random = Random::new(key);
        let mut requests = Vec::new();
        let mut at = 0.0;
        loop {
            at -= (1.0 - random.uniform()).ln() / rate;
            if at >= seconds as f64 {
                return Self(requests);
            }
            let words = lengths.draw(&mut random);
            requests.push((Duration::from_secs_f64(at), json!({ "inputs": text(words, &mut random) })));
        }
    }

    /// Sends each request when its time has come. It is measured from then on, also if no connection is free.
    pub fn send(&self, address: SocketAddr) -> Vec<Outcome> {
        let (arrive, arrived) = mpsc::channel::<(Instant, &Value)>();
        let arrived = Mutex::new(arrived);
        let outcomes = Mutex::new(Vec::with_capacity(self.0.len()));
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(self.0.len()) {
                scope.spawn(|| {
                    loop {
                        let next = arrived.lock().expect("no panic").recv();
                        let Ok((time, body)) = next else { return };
                        let outcome = client::predict(address, body).map(|()| time.elapsed());
                        outcomes.lock().expect("no panic").push(outcome);
                    }
                });
            }
            let start = Instant::now();
            for (at, body) in &self.0 {
                let time = start + *at;
                thread::sleep(time.saturating_duration_since(Instant::now()));
                arrive.send((time, body)).expect("somebody receives");
            }
            drop(arrive);
        });
        outcomes.into_inner().expect("no panic")
    }
}
