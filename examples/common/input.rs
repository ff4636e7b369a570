//! Texts from an argument, a file or standard input, as plain lines or JSON lines.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use clap::Args;
use deberta_burn::{Error, Result};
use serde::de::DeserializeOwned;

/// Where the texts come from.
#[derive(Args)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// The text; without it, texts are read from --file or standard input
    text: Option<String>,

    /// File of texts, one a line; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,

    /// The lines are JSON objects (always so for files that end in .jsonl)
    #[arg(long, conflicts_with_all = ["text", "whole"])]
    jsonl: bool,

    /// The whole input is one text, line breaks included
    #[arg(long, conflicts_with = "text")]
    whole: bool,
}

impl InputArgs {
    /// Reads the rows: JSON lines as they are, plain texts through `from_text`.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is empty, not UTF-8 or not the JSON wanted, or nothing at all.
    pub fn read<R: DeserializeOwned>(&self, from_text: impl Fn(String) -> R) -> Result<Vec<R>> {
        if let Some(text) = &self.text {
            return Ok(vec![from_text(checked("the text argument", text.as_bytes())?)]);
        }
        let (name, bytes) = self.bytes()?;
        if self.whole {
            return Ok(vec![from_text(checked(&name, &bytes)?)]);
        }
        let json = self.jsonl || name.ends_with(".jsonl");
        let row = |(index, line)| {
            let subject = format!("line {} of {name}", index + 1);
            let line = checked(&subject, line)?;
            if json { serde_json::from_str(&line).map_err(Error::json(subject)) } else { Ok(from_text(line)) }
        };
        let rows: Vec<R> = lines(&bytes).enumerate().map(row).collect::<Result<_>>()?;
        if rows.is_empty() {
            return Err(Error::input(name, "it is empty, expected at least one line"));
        }
        Ok(rows)
    }

    /// The input's name and content.
    fn bytes(&self) -> Result<(String, Vec<u8>)> {
        match self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            Some(path) => Ok((path.display().to_string(), fs::read(path).map_err(Error::io("read", path))?)),
            None => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes).map_err(Error::io("read", "standard input"))?;
                Ok(("standard input".to_owned(), bytes))
            }
        }
    }
}

/// The lines, without their ends; the last one needs none.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// The text in these bytes, if it is one.
fn checked(subject: &str, bytes: &[u8]) -> Result<String> {
    let text = str::from_utf8(bytes).map_err(|error| {
        Error::input(subject, format!("it is not UTF-8 (after {} bytes); convert it first", error.valid_up_to()))
    })?;
    match text.trim().is_empty() {
        true => Err(Error::input(subject, "it is empty, expected a text")),
        false => Ok(text.to_owned()),
    }
}
