//! A server for one test, and requests to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is killed when it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The message of a problem with this status.
    #[track_caller]
    pub fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["error_type"], kind, "{self:?}");
        body["error"].as_str().expect("a message").to_owned()
    }
}

impl Server {
    /// Starts a server for a checkpoint folder and waits until it is ready.
    pub fn start(model: &Path, arguments: &[&str]) -> Self {
        let server = Self::launch(model, arguments);
        server.wait_until(|server| server.get("/ready").status == 200);
        server
    }

    /// Starts a server and waits until it listens.
    pub fn launch(model: &Path, arguments: &[&str]) -> Self {
        let (child, line, lines) = spawn(model, arguments);
        let address = serde_json::from_str::<Value>(&line).ok();
        let address = address.and_then(|line| line["fields"]["address"].as_str().and_then(|text| text.parse().ok()));
        let address = address.unwrap_or_else(|| panic!("no address in {line}"));
        let log = Arc::new(Mutex::new(line));
        let copy = log.clone();
        thread::spawn(move || keep(lines, &copy));
        Self { child, address, log }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits for something that comes soon.
    #[track_caller]
    pub fn wait_until(&self, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "still not so:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends bytes on a connection of their own and reads the answer.
    pub fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has refused a body need not read it.
        let _ = stream.write_all(bytes);
        answer(&mut stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, "")
    }

    /// The same with further header lines, each with its end.
    pub fn post_with(&self, path: &str, body: &Value, headers: &str) -> Answer {
        self.send(&request(path, body.to_string().as_bytes(), headers))
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for its end; its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => return status.code(),
                None => assert!(start.elapsed() < PATIENCE, "the server does not end:\n{}", self.log()),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, the first line that it logs, and all others.
fn spawn(model: &Path, arguments: &[&str]) -> (Child, String, BufReader<ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deberta-serve"))
        .args(["--listen", "127.0.0.1:0", "--json-logs", "--batch-tokens", "256", "--model"])
        .arg(model)
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    (child, line, lines)
}

/// What a server says that does not even listen.
#[track_caller]
pub fn refusal(model: &Path, arguments: &[&str]) -> String {
    let (mut child, line, _) = spawn(model, arguments);
    // If it does listen, the line is another one.
    let _ = child.kill();
    let _ = child.wait();
    line.strip_prefix("error: ").unwrap_or_else(|| panic!("{arguments:?}: {line}")).to_owned()
}

/// Keeps the log, so that the pipe does not fill.
fn keep(lines: BufReader<ChildStderr>, log: &Mutex<String>) {
    for line in lines.lines().map_while(Result::ok) {
        let mut log = log.lock().expect("the log");
        log.push_str(&line);
        log.push('\n');
    }
}

/// The bytes of a request.
pub fn request(path: &str, body: &[u8], headers: &str) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads an answer up to the end of the connection.
pub fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has still brought it.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (headers, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let chunked = headers.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body) } else { body.to_owned() };
    Answer { status, headers: headers.to_owned(), body }
}

/// The content of a chunked body.
fn dechunk(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        content.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    content
}
