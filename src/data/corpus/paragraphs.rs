//! Paragraphs of plain text and JSON lines, compressed or not, as a stream.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::super::lines::at_line;
use crate::{Error, Result, text_file};

/// A line of text that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// The text, without white space at its ends.
    pub text: String,
    /// Whether it is the first of its document.
    pub starts_document: bool,
}

/// The paragraphs of several files, one file after the other. The first error ends them.
///
/// - `.txt`: one paragraph on each line; an empty line ends a document, and so does the end of the file;
/// - `.jsonl`: one object on each line; its `text` is a document with one paragraph on each line;
/// - `.txt.gz`, `.jsonl.gz`: the same, compressed.
#[derive(Debug)]
pub struct Paragraphs {
    files: VecDeque<PathBuf>,
    lines: Option<Lines>,
    waiting: VecDeque<Paragraph>,
    /// Whether the next plain line starts a document.
    between_documents: bool,
    total_bytes: u64,
    bytes_read: Arc<AtomicU64>,
}

impl Paragraphs {
    /// Prepares to read these files.
    ///
    /// # Errors
    /// No file at all, a missing file, or one whose name does not tell its format.
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::setting("text files", "no file was named, expected at least one .txt or .jsonl file"));
        }
        let mut total_bytes = 0;
        for path in files {
            Format::of(path)?;
            total_bytes += fs::metadata(path).map_err(Error::io("read", path))?.len();
        }
        Ok(Self {
            files: files.iter().cloned().collect(),
            lines: None,
            waiting: VecDeque::new(),
            between_documents: true,
            total_bytes,
            bytes_read: Arc::default(),
        })
    }

    /// Bytes read so far, as they are on disk (compressed or not).
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of all files, as they are on disk.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Reads on until a paragraph is waiting, or the last file ends.
    fn read(&mut self) -> Result<()> {
        while self.waiting.is_empty() {
            let Some(lines) = &mut self.lines else {
                let Some(path) = self.files.pop_front() else { break };
                self.lines = Some(Lines::open(path, self.bytes_read.clone())?);
                self.between_documents = true;
                continue;
            };
            match lines.next()? {
                None => self.lines = None,
                Some(line) if line.trim().is_empty() => self.between_documents = true,
                Some(line) if lines.format.json => {
                    let text = lines.text(&line)?;
                    self.add_document(&text);
                }
                Some(line) => {
                    let starts_document = std::mem::take(&mut self.between_documents);
                    self.waiting.push_back(Paragraph { text: line.trim().to_owned(), starts_document });
                }
            }
        }
        Ok(())
    }

    fn add_document(&mut self, text: &str) {
        let paragraphs = text.lines().map(str::trim).filter(|paragraph| !paragraph.is_empty());
        self.waiting.extend(
            paragraphs.enumerate().map(|(i, text)| Paragraph { text: text.to_owned(), starts_document: i == 0 }),
        );
    }
}

impl Iterator for Paragraphs {
    type Item = Result<Paragraph>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(()) => self.waiting.pop_front().map(Ok),
            Err(error) => {
                self.files.clear();
                self.lines = None;
                Some(Err(error))
            }
        }
    }
}

/// The format of a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) json: bool,
    pub(super) compressed: bool,
}

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (name, compressed) = name.strip_suffix(".gz").map_or((name.as_str(), false), |name| (name, true));
        match name.rsplit_once('.') {
            Some((_, "txt")) => Ok(Self { json: false, compressed }),
            Some((_, "jsonl")) => Ok(Self { json: true, compressed }),
            _ => {
                let problem = "its name does not tell its format, expected .txt, .jsonl, .txt.gz or .jsonl.gz";
                Err(Error::file(path, problem))
            }
        }
    }
}

/// One object of a JSON lines file; other fields are ignored.
#[derive(Deserialize)]
struct Row {
    text: String,
}

/// The lines of one file.
struct Lines {
    path: PathBuf,
    format: Format,
    reader: Box<dyn BufRead + Send>,
    number: usize,
}

impl Lines {
    fn open(path: PathBuf, bytes_read: Arc<AtomicU64>) -> Result<Self> {
        let format = Format::of(&path)?;
        let file = Counted { file: File::open(&path).map_err(Error::io("read", &path))?, bytes_read };
        let mut file = BufReader::new(file);
        text_file::refuse_pointer(&path, file.fill_buf().map_err(Error::io("read", &path))?)?;
        let reader: Box<dyn BufRead + Send> = match format.compressed {
            true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
            false => Box::new(file),
        };
        Ok(Self { path, format, reader, number: 0 })
    }

    fn next(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let length = self.reader.read_until(b'\n', &mut line).map_err(Error::io("read", &self.path))?;
        self.number += 1;
        let line = text_file::decode_lines(self.path.display(), self.number, line)?;
        let line = if self.number == 1 { text_file::drop_mark(line) } else { line };
        Ok((length > 0).then_some(line))
    }

    /// The text in a line of JSON.
    fn text(&self, line: &str) -> Result<String> {
        let row: Row = serde_json::from_str(line).map_err(Error::json(at_line(self.path.display(), self.number)))?;
        Ok(row.text)
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lines").field("path", &self.path).field("number", &self.number).finish_non_exhaustive()
    }
}

/// A file that counts the bytes read from it, for progress.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Writes files into a temporary folder and reads them; a text that starts a document is marked by `#`.
    fn read(files: &[(&str, &[u8])]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, content): &(&str, &[u8])| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let paths: Vec<_> = files.iter().map(write).collect();
        let mut paragraphs = Paragraphs::open(&paths)?;
        let mark = |Paragraph { text, starts_document }| if starts_document { format!("#{text}") } else { text };
        let read = paragraphs.by_ref().map(|paragraph| paragraph.map(mark)).collect::<Result<_>>()?;
        assert_eq!(paragraphs.bytes_read(), paragraphs.total_bytes());
        Ok(read)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn an_empty_line_ends_a_document() {
        let text = "\u{feff}one\n two \r\n\n\n \nthree\nfour".as_bytes();
        assert_eq!(read(&[("a.txt", text)]).unwrap(), ["#one", "two", "#three", "four"]);
    }

    #[test]
    fn the_end_of_a_file_ends_a_document() {
        let read = read(&[("a.txt", b"one"), ("b.TXT", b"two\nthree\n"), ("c.txt", b"")]).unwrap();
        assert_eq!(read, ["#one", "#two", "three"]);
    }

    #[test]
    fn each_json_line_is_a_document() {
        let rows = br#"{"text": "one\n\ntwo", "id": 3}

{"text": " "}
{"text": "three"}"#;
        assert_eq!(read(&[("a.jsonl", rows)]).unwrap(), ["#one", "two", "#three"]);
    }

    #[test]
    fn compressed_files_may_have_several_members() {
        let both = [gzip(b"one\ntwo"), gzip(b" and a half\n\nthree")].concat();
        let read = read(&[("a.txt.gz", &both), ("b.jsonl.gz", &gzip(br#"{"text": "four"}"#))]).unwrap();
        assert_eq!(read, ["#one", "two and a half", "#three", "#four"]);
    }

    #[test]
    fn errors_say_where() {
        let error = |files: &[(&str, &[u8])]| read(files).unwrap_err().to_string();
        let message = error(&[("a.txt", b"one\n\xff\n")]);
        assert!(
            message
                .ends_with("a.txt, line 2: it is not valid UTF-8: save the file in that encoding, or fetch it again"),
            "{message}"
        );
        let message = error(&[("a.jsonl", b"{\"text\": \"one\"}\n{\"body\": \"two\"}")]);
        assert!(message.contains("a.jsonl, line 2") && message.contains("missing field `text`"), "{message}");
        let compressed = gzip(&[b'a'; 1000]);
        let message = error(&[("a.txt.gz", &compressed[..compressed.len() - 9])]);
        assert!(message.starts_with("cannot read ") && message.contains("a.txt.gz"), "{message}");
        let message = error(&[("a.csv", b"one")]);
        assert!(
            message.ends_with("a.csv: its name does not tell its format, expected .txt, .jsonl, .txt.gz or .jsonl.gz")
        );
        assert!(error(&[]).contains("no file was named"));
    }

    #[test]
    fn nothing_follows_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, b"\xff\none\n").unwrap();
        let mut paragraphs = Paragraphs::open(&[path.clone(), path]).unwrap();
        assert!(paragraphs.next().unwrap().is_err());
        assert!(paragraphs.next().is_none());
    }
}
