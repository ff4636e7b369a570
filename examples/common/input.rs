//! Texts from an argument, a file or standard input, as plain lines or JSON lines.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use deberta_burn::{
    Error, Result,
    data::{Shard, at_line, decode_text, read_bytes},
};
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

    /// Read the K-th of N shares of the rows; one after the other, the answers to all shares are those to the whole
    #[arg(long, value_name = "K/N", conflicts_with_all = ["text", "whole"])]
    shard: Option<Shard>,
}

impl InputArgs {
    /// The file, if its name ends in `.parquet`.
    pub fn parquet(&self) -> Option<&Path> {
        let is_parquet =
            |file: &&PathBuf| file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        self.file.as_ref().filter(is_parquet).map(PathBuf::as_path)
    }

    /// Whether the lines are JSON objects.
    fn is_json(&self) -> bool {
        let is_jsonl = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "jsonl");
        self.text.is_none() && !self.whole && (self.jsonl || self.file.as_ref().is_some_and(is_jsonl))
    }

    /// Refuses a flag that says of plain lines what JSON lines say themselves.
    ///
    /// # Errors
    /// It is given, and the lines are JSON objects.
    #[allow(dead_code, reason = "some tasks have no such flag")]
    pub fn refuse_beside_json(&self, flag: &str, is_given: bool) -> Result<()> {
        match is_given && self.is_json() {
            true => {
                Err(Error::setting(flag, "it is for plain lines; JSON lines have a field for that each: leave it out"))
            }
            false => Ok(()),
        }
    }

    /// Which rows are read.
    pub fn shard(&self) -> Shard {
        self.shard.unwrap_or(Shard::WHOLE)
    }

    /// Reads the rows: JSON lines as they are, plain texts through `from_text`. Blank lines after the last text do not count,
    /// nor do those between JSON lines.
    ///
    /// # Errors
    /// A file that cannot be read or is Parquet, a text that is blank, what is not UTF-8 or not the JSON wanted, or nothing at
    /// all.
    pub fn read<R: DeserializeOwned>(&self, from_text: impl Fn(String) -> R) -> Result<(Vec<R>, Locations)> {
        if let Some(text) = &self.text {
            let place = "the text argument";
            return Ok((vec![from_text(not_blank(place, text)?)], Locations::whole(place)));
        }
        if let Some(file) = self.parquet() {
            let problem =
                "Parquet is read by classify, embed, ner and rerank, if they are built with `--features parquet`";
            return Err(Error::file(file, problem));
        }
        let (name, bytes) = self.bytes()?;
        let text = decode_text(&name, bytes)?;
        if self.whole {
            return Ok((vec![from_text(not_blank(&name, &text)?)], Locations::whole(&name)));
        }
        let blank = |line: &str| line.trim().is_empty();
        let Some(last) = text.lines().collect::<Vec<_>>().iter().rposition(|line| !blank(line)) else {
            return Err(Error::input(name, "it is empty, expected at least one line"));
        };
        let json = self.is_json();
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        for (line, text) in (1..).zip(text.lines().take(last + 1)).filter(|(_, text)| !json || !blank(text)) {
            let place = at_line(&name, line);
            rows.push(match json {
                true => serde_json::from_str(text).map_err(Error::json(place))?,
                false => from_text(not_blank(&place, text)?),
            });
            lines.push(line);
        }
        let share = self.shard().range(rows.len());
        if share.is_empty() {
            let problem = format!("it has no row: {name} has {}, expected no more shares than these", rows.len());
            return Err(Error::setting("--shard", problem));
        }
        let (rows, lines) = (rows.drain(share.clone()).collect(), lines[share].to_vec());
        Ok((rows, Locations { name, lines }))
    }

    /// The input's name and content.
    fn bytes(&self) -> Result<(String, Vec<u8>)> {
        match self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            Some(path) => Ok((path.display().to_string(), read_bytes(path)?)),
            None => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes).map_err(Error::io("read", "standard input"))?;
                Ok(("standard input".to_owned(), bytes))
            }
        }
    }
}

/// The text, if there is something in it.
fn not_blank(place: &str, text: &str) -> Result<String> {
    match text.trim().is_empty() {
        true => Err(Error::input(place, "it is empty, expected a text")),
        false => Ok(text.to_owned()),
    }
}

/// Where the rows of an input come from.
pub struct Locations {
    name: String,
    /// The line of each row; none if there is one row that is the whole input.
    lines: Vec<usize>,
}

impl Locations {
    fn whole(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new() }
    }

    /// Lets errors about a row say where that is.
    pub fn locate<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            error.with_text_name(|row| match self.lines.get(row) {
                Some(line) => at_line(&self.name, *line),
                None => self.name.clone(),
            })
        })
    }
}
