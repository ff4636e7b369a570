//! Answers on standard output, as text or as JSON lines.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use clap::Args;
use deberta_burn::Error;
use serde::Serialize;

/// How answers are written.
#[derive(Args)]
pub struct OutputArgs {
    /// Print one JSON object a line
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl OutputArgs {
    /// Standard output, ready for answers.
    pub fn open(&self) -> Output {
        Output { json: self.json, stdout: BufWriter::new(io::stdout().lock()) }
    }
}

/// Standard output.
pub struct Output {
    json: bool,
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Writes the answer to one input: as a JSON line, or as `text` puts it.
    pub fn write<A: Serialize>(
        &mut self,
        answer: &A,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer(&mut self.stdout, answer).map_err(io::Error::from)?;
            writeln!(self.stdout)?;
        } else {
            text(&mut self.stdout)?;
        }
        Ok(())
    }

    /// Writes out what is still in the buffer.
    pub fn finish(mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }
}

/// Why an example stops.
pub enum Failure {
    /// Something to tell.
    Error(Error),
    /// Nobody reads standard output any more.
    Closed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Error(Error::io("write", "standard output")(error)),
        }
    }
}
