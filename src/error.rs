//! The crate's one error type. Every message names the subject (a file, a key, a row), says what was expected of it, and
//! what to do about it.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever can go wrong between a folder on disk and an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a path.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, ….
        action: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },

    /// A JSON file or line does not parse.
    #[error("{subject} is not valid JSON: {source}")]
    Json {
        /// The file, or the line of standard input.
        subject: String,
        /// The parser's answer, with line and column.
        #[source]
        source: serde_json::Error,
    },

    /// A configuration key holds a value that no model can have.
    #[error("config key `{key}` is {found}, expected {expected}")]
    Config {
        /// The key as `config.json` spells it.
        key: String,
        /// The value found.
        found: String,
        /// What would have been right.
        expected: String,
    },

    /// The checkpoint's files are damaged, incomplete, or do not fit the model.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// The tokenizer's files are damaged, incomplete, or of a kind the crate does not read.
    #[error("tokenizer {}: {problem}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// The device that was asked for cannot be used.
    #[error("device `{device}`: {problem}")]
    Device {
        /// The name that was asked for.
        device: String,
        /// What is missing: a Cargo feature, a driver, a GPU.
        problem: String,
    },

    /// A text, a batch or a data row cannot be processed.
    #[error("{subject}: {problem}")]
    Input {
        /// The row, line or argument.
        subject: String,
        /// What is wrong and what was expected.
        problem: String,
    },

    /// One of several texts cannot be processed.
    #[error("{subject}: {problem}")]
    Text {
        /// Which text it is, from 0.
        index: usize,
        /// What it is called: `text 3`, a question, the line of a file.
        subject: String,
        /// What is wrong and what was expected.
        problem: String,
    },

    /// What the model computed from one of several texts is NaN or infinite.
    #[error("{subject}: {problem}")]
    NotFinite {
        /// Which text it is, from 0.
        index: usize,
        /// What it is called: `text 3`, a question, the line of a file.
        subject: String,
        /// What is not finite, why, and what to do.
        problem: String,
    },

    /// Training came to NaN or infinity.
    #[error("training ended at step {step}: {problem}")]
    Diverged {
        /// The step.
        step: usize,
        /// What is not finite, the likely reasons, and which model was kept.
        problem: String,
    },

    /// The model was asked for something that its configuration or its checkpoint cannot give.
    #[error("model: {0}")]
    Model(String),

    /// A model hub could not be reached, or does not have the repository.
    #[error("hub repository `{repository}`: {problem}")]
    Hub {
        /// The repository id.
        repository: String,
        /// What went wrong and what to do.
        problem: String,
    },
}

impl Error {
    /// Wraps an [`io::Error`]; to be used as `.map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps a JSON error; to be used as `.map_err(Error::json(subject))`.
    pub fn json(subject: impl Display) -> impl FnOnce(serde_json::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Json { subject, source }
    }

    /// A configuration value that cannot be.
    pub fn config(key: impl Into<String>, found: impl Display, expected: impl Into<String>) -> Self {
        Self::Config { key: key.into(), found: found.to_string(), expected: expected.into() }
    }

    /// A damaged or unfitting checkpoint.
    pub fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// A damaged or unknown tokenizer.
    pub fn tokenizer(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Tokenizer { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// An input that cannot be processed.
    pub fn input(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input { subject: subject.into(), problem: problem.into() }
    }

    /// One of several texts that cannot be processed.
    pub fn text(index: usize, problem: impl Into<String>) -> Self {
        Self::Text { index, subject: format!("text {index}"), problem: problem.into() }
    }

    /// Where the error is about one of several texts, calls that text as `name` says.
    pub fn with_text_name(mut self, name: impl FnOnce(usize) -> String) -> Self {
        if let Self::Text { index, subject, .. } | Self::NotFinite { index, subject, .. } = &mut self {
            *subject = name(*index);
        }
        self
    }
}
