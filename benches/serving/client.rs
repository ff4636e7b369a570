//! One request over HTTP/1.1, on a connection of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;

/// Longer than anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for labels; an answer that is none is an error.
pub fn predict(address: SocketAddr, body: &Value) -> Result<()> {
    let body = body.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = "POST /predict HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json";
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"score\""), "no labels in {answer}");
    Ok(())
}
