//! Serves the devices of this machine to training on another one.
//!
//! ```sh
//! cargo run --release --features remote --example worker -- --devices cuda --port 3000      # on each machine
//! cargo run --release --features remote --example finetune_classification -- \
//!     --model path/to/checkpoint --train train.tsv --devices remote:10.0.0.2:3000,remote:10.0.0.3:3000
//! ```
//!
//! Nothing is encrypted: use it within a trusted network. If the environment variable DEBERTA_BURN_REMOTE_TOKEN is set, clients need
//! the same. The worker ends with Ctrl+C or SIGTERM.

#[path = "common/allocator.rs"]
mod allocator;

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    process::ExitCode,
};

use clap::Parser;
use deberta_burn::{Error, Result, device};

/// Serve this machine's devices to training on another one
#[derive(Parser)]
struct Args {
    /// Devices to serve, with commas between them: flex, cuda, cuda:0, ...; a kind without a number is all of its kind
    #[arg(long, value_name = "NAMES", default_value = "flex")]
    devices: String,

    /// Address to listen on; 0.0.0.0 for clients on other machines
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,

    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 3000)]
    port: u16,
}

fn main() -> ExitCode {
    match serve(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(Args { devices, host, port }: Args) -> Result<()> {
    let devices = device::devices(&devices)?;
    let address = format!("{host}:{port}");
    let listener = TcpListener::bind((host, port)).map_err(Error::io("listen on", &address))?;
    let address = listener.local_addr().map_err(Error::io("listen on", &address))?;
    println!("{} devices on {address}", devices.len());
    device::serve(devices, listener)
}
