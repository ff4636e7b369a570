//! What it takes to send a tensor from one worker to another, beside the arithmetic that could be sent there: the network of an
//! expert of v3-base's shape. The workers are processes of the example `worker`.
//!
//! ```sh
//! RAYON_NUM_THREADS=1 cargo run --release --features remote --example worker -- --port 3000 &
//! RAYON_NUM_THREADS=1 cargo run --release --features remote --example worker -- --port 3001 &
//! cargo bench --features remote --bench workers -- remote:127.0.0.1:3000 remote:127.0.0.1:3001
//! ```

use std::{env, process::ExitCode, time::Instant};

use burn::{
    Tensor,
    tensor::{Device, Distribution, activation::gelu},
};
use deberta_burn::{Error, Result, device::device};

/// Width of a token, and of an expert's network.
const WIDTHS: [usize; 2] = [768, 3072];
/// Tokens that are sent, or that an expert takes.
const TOKENS: [usize; 5] = [16, 128, 512, 2048, 16384];
const ROUNDS: usize = 9;

/// The median time of some runs, in milliseconds. Each ends with a number that is read from its result.
fn median(mut run: impl FnMut() -> Tensor<2>) -> f64 {
    let mut timed = || {
        let start = Instant::now();
        run().slice([0..1, 0..1]).into_data();
        start.elapsed().as_secs_f64() * 1e3
    };
    timed();
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| timed()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn compare(from: &Device, to: &Device) {
    let [width, inner] = WIDTHS;
    let numbers = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, from);
    let (widen, narrow) = (numbers([width, inner]), numbers([inner, width]));
    let (one, there) = (numbers([1, 1]), Tensor::<2>::zeros([1, 1], to));
    let reading = [one, there].map(|tensor| median(|| tensor.clone() + 1.0));
    println!("to read a number: {:.2} and {:.2} ms, which the other times do not include", reading[0], reading[1]);
    for tokens in TOKENS {
        let states = numbers([tokens, width]);
        let sent = median(|| states.clone().to_device(to)) - reading[1];
        let both = median(|| states.clone().to_device(to).to_device(from)) - reading[0];
        let mapped = median(|| gelu(states.clone().matmul(widen.clone())).matmul(narrow.clone())) - reading[0];
        let megabytes = (tokens * width * size_of::<f32>()) as f64 / 1e6;
        println!(
            "{tokens} tokens, {megabytes:.1} MB: sent in {sent:.2} ms ({:.0} MB/s), there and back {both:.2} ms; an expert {mapped:.2} ms",
            megabytes / sent * 1e3
        );
    }
}

fn main() -> ExitCode {
    let run = || -> Result<()> {
        // cargo adds `--bench`.
        let names: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
        let [from, to] = &names[..] else {
            return Err(Error::setting("devices", "expected two, such as remote:127.0.0.1:3000 remote:127.0.0.1:3001"));
        };
        compare(&device(from)?, &device(to)?);
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
