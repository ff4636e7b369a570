//! How long the answers of servers take under a given load: an open loop, in which requests arrive whether or not earlier ones
//! were answered, as those of many people do. Servers take turns.
//!
//! ```sh
//! cargo bench --features serve --bench load -- --rates 2,4,8 ours=127.0.0.1:3000@PID torch=127.0.0.1:3001@PID
//! ```
//!
//! `benches/README.md` says how to start the servers.

mod client;
mod traffic;

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use traffic::{Lengths, Outcome, Traffic};

/// Measure how long servers take to answer /predict
#[derive(Parser)]
struct Args {
    /// NAME=ADDRESS:PORT, and @PID to see its memory
    #[arg(required = true, value_parser = server)]
    servers: Vec<Server>,

    /// Requests a second, one after another; a server that is too slow for one gets none of those after it
    #[arg(long, value_delimiter = ',', required = true)]
    rates: Vec<f64>,

    /// Then these parts of each server's own capacity, the highest of the rates that it kept up with
    #[arg(long, value_delimiter = ',')]
    parts: Vec<f64>,

    /// Seconds of each
    #[arg(long, default_value_t = 20)]
    seconds: u64,

    /// How often to go through the rates
    #[arg(long, default_value_t = 1)]
    rounds: u64,

    /// The 99th percentile, in milliseconds, from which on a server is too slow
    #[arg(long, default_value_t = 1000.0)]
    limit: f64,

    /// The median of the texts' lengths, in words
    #[arg(long, default_value_t = 24.0)]
    median: f64,

    /// The standard deviation of the logarithm of these lengths
    #[arg(long, default_value_t = 0.9)]
    sigma: f64,

    /// The longest text, in words
    #[arg(long, default_value_t = 400)]
    longest: usize,

    /// Texts of 200 words in each request of one more client, who sends the next as soon as the last is answered; 0: none
    #[arg(long, default_value_t = 0)]
    heavy: usize,

    /// Seed of arrivals and texts
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// What cargo tells a bench
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone)]
struct Server {
    name: String,
    address: SocketAddr,
    process: Option<u32>,
}

fn server(text: &str) -> Result<Server> {
    let (name, rest) = text.split_once('=').context("expected NAME=ADDRESS:PORT")?;
    let (address, process) = match rest.split_once('@') {
        Some((address, process)) => (address, Some(process.parse().context("the process id is no number")?)),
        None => (rest, None),
    };
    Ok(Server { name: name.to_owned(), address: address.parse().context("the address is none")?, process })
}

/// What a process has used, by `/proc`.
#[derive(Clone, Copy)]
struct Used {
    processor: Duration,
    memory_mib: u64,
}

impl Used {
    fn of(process: u32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).ok();
        let status = read("status")?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory_mib = kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024;
        // After the name, in parentheses: the 12th and 13th are hundredths of a second in the program and in the system.
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().ok());
        let ticks: u64 = ticks.sum::<Option<u64>>()?;
        Some(Self { processor: Duration::from_millis(ticks * 10), memory_mib })
    }
}

/// The value below which this part of them lies.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}

/// Sends texts at this rate, beside the heavy client if there is one, and prints a row of the table; whether the server kept up.
fn measure(server: &Server, rate: f64, key: &[u64], args: &Args) -> bool {
    let lengths = Lengths { median: args.median, sigma: args.sigma, longest: args.longest };
    let traffic = Traffic::new(rate, args.seconds, lengths, key);
    let before = server.process.and_then(Used::of);
    let done = AtomicBool::new(false);
    let (outcomes, heavy) = thread::scope(|scope| {
        let company = scope.spawn(|| {
            let requests = (0..).take_while(|_| args.heavy > 0 && !done.load(Ordering::Relaxed));
            let answered =
                requests.filter(|&index| client::predict(server.address, &traffic::heavy(args.heavy, index)).is_ok());
            args.heavy * answered.count()
        });
        let outcomes = traffic.send(server.address);
        done.store(true, Ordering::Relaxed);
        (outcomes, company.join().expect("the heavy client"))
    });
    let after = server.process.and_then(Used::of);
    if let Some(Err(problem)) = outcomes.iter().find(|outcome| outcome.is_err()) {
        eprintln!("{}: {problem:#}", server.name);
    }
    let answers = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let mut times: Vec<f64> = answers.map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let (answered, failed) = (times.len(), outcomes.len() - times.len());
    let [p50, p95, p99] = match times.is_empty() {
        true => [f64::INFINITY; 3],
        false => [0.5, 0.95, 0.99].map(|part| percentile(&times, part)),
    };
    let used = before.zip(after).map_or("? | ?".to_owned(), |(before, after)| {
        let processor = (after.processor - before.processor).as_secs_f64() * 1e3;
        format!("{:.1} | {}", processor / (answered + heavy) as f64, after.memory_mib)
    });
    let name = &server.name;
    println!("| {name} | {rate:.1} | {answered} | {failed} | {p50:.0} | {p95:.0} | {p99:.0} | {heavy} | {used} |");
    failed == 0 && p99 < args.limit
}

fn main() {
    let args = Args::parse();
    println!(
        "| server | a second | answered | failed | p50 ms | p95 ms | p99 ms | heavy texts | processor ms a text | MiB |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for round in 0..args.rounds {
        // The highest rate that each server kept up with; none once it did not.
        let mut capacities = vec![0.0; args.servers.len()];
        let mut fast = vec![true; args.servers.len()];
        for (index, &rate) in args.rates.iter().enumerate() {
            let places = args.servers.iter().zip(&mut fast).zip(&mut capacities);
            for ((server, fast), capacity) in places.filter(|((_, fast), _)| **fast) {
                *fast = measure(server, rate, &[args.seed, round, index as u64], &args);
                if *fast {
                    *capacity = rate;
                }
            }
        }
        for (index, part) in args.parts.iter().enumerate() {
            for (server, capacity) in args.servers.iter().zip(&capacities).filter(|(_, capacity)| **capacity > 0.0) {
                measure(server, part * capacity, &[args.seed, round, (args.rates.len() + index) as u64], &args);
            }
        }
    }
}
