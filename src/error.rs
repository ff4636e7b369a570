//! The crate's one error type. A program tells errors apart by their kind, a reader by their message: it names the subject (a
//! file, a key, a row), says what was expected, and what to do.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whatever can go wrong between a folder on disk and an answer.
///
/// ```
/// use deberta_burn::{Error, ModelConfig};
///
/// match ModelConfig::from_folder("no/such/folder") {
///     Err(Error::Missing { path, .. }) => assert!(path.ends_with("config.json")),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder is not there.
    #[error("{message}")]
    Missing {
        /// The file, or the folder that lacks it.
        path: PathBuf,
        /// What was looked for and what to do. It names the path.
        message: String,
    },

    /// The operating system refused to read or write a path, although it is there.
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

    /// A file or folder as a whole does not hold what it should: it is empty, of another format, or a Git LFS pointer.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A row of a data file cannot be used.
    #[error("{file}, {row}: {problem}")]
    Row {
        /// The file, or `standard input`.
        file: String,
        /// Which row.
        row: Row,
        /// What is wrong and what was expected.
        problem: String,
    },

    /// A configuration key holds a value that no model can have.
    #[error("{}config key `{key}` is {found}, expected {expected}", in_file(file))]
    Config {
        /// The file it was read from, if it comes from one.
        file: Option<PathBuf>,
        /// The key as `config.json` spells it.
        key: String,
        /// The value found.
        found: String,
        /// What would have been right.
        expected: String,
    },

    /// An option or a command line flag has a value that it cannot have, alone or beside the others.
    #[error("{name}: {problem}")]
    Setting {
        /// The option or flag.
        name: String,
        /// What is wrong and what was expected.
        problem: String,
    },

    /// The checkpoint's files are damaged, contradict each other, or are for another task.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A tensor of the checkpoint is missing, damaged, or does not fit the model.
    #[error("checkpoint {}: {problem}", path.display())]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor's key; the first one, if it is about several.
        name: String,
        /// What is wrong and what to do. It names the tensor.
        problem: String,
    },

    /// The tokenizer's files are damaged or contradict each other.
    #[error("tokenizer {}: {problem}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// The crate, or this model, does not support what was asked for.
    #[error("{subject}: {problem}")]
    Unsupported {
        /// The file, model or value.
        subject: String,
        /// What is not supported, and what to use instead.
        problem: String,
    },

    /// The wanted device cannot be used, or its results cannot be read.
    #[error("device `{device}`: {problem}")]
    Device {
        /// The name of the device.
        device: String,
        /// What is missing (a Cargo feature, a driver, a GPU), or what failed.
        problem: String,
    },

    /// What a program handed over (texts, a batch, labels, figures) cannot be processed.
    #[error("{subject}: {problem}")]
    Input {
        /// The argument, or the part of it.
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

    /// What a model computed is NaN or infinite.
    #[error("{subject}: {problem}")]
    NotFinite {
        /// Which of several texts it was computed from, from 0; none if it does not belong to one text.
        index: Option<usize>,
        /// What it belongs to: `text 3`, a question, the line of a file, an evaluation.
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

    /// A model hub could not be reached, or does not have the repository.
    #[error("hub repository `{repository}`: {problem}")]
    Hub {
        /// The repository id.
        repository: String,
        /// What went wrong and what to do.
        problem: String,
    },
}

/// A row of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// By its line, from 1.
    Line(usize),
    /// By its id, or its number from 1, as in SQuAD's files.
    Question(String),
}

impl Display for Row {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Question(name) => write!(formatter, "question {name}"),
        }
    }
}

/// The start of a message about a file, if there is one.
fn in_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default()
}

impl Error {
    /// A file or folder that is not there; the message names it.
    pub fn missing(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Missing { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// Wraps an [`io::Error`], a file that is not there as [`Error::Missing`]; to be used as
    /// `.map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("cannot {action} {}: {source}", path.display());
                Self::Missing { path, message }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Wraps a JSON error; to be used as `.map_err(Error::json(subject))`.
    pub fn json(subject: impl Display) -> impl FnOnce(serde_json::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Json { subject, source }
    }

    /// A file that does not hold what it should.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// A line of a file, counted from 1, that cannot be used.
    pub fn line(file: impl AsRef<Path>, line: usize, problem: impl Into<String>) -> Self {
        Self::Row { file: file.as_ref().display().to_string(), row: Row::Line(line), problem: problem.into() }
    }

    /// A configuration value that cannot be.
    pub fn config(key: impl Into<String>, found: impl Display, expected: impl Into<String>) -> Self {
        Self::Config { file: None, key: key.into(), found: found.to_string(), expected: expected.into() }
    }

    /// An option or flag with a value that it cannot have.
    pub fn setting(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Setting { name: name.into(), problem: problem.into() }
    }

    /// An option or flag whose value is not what is expected.
    pub fn value(name: impl Into<String>, found: impl Display, expected: impl Display) -> Self {
        Self::setting(name, format!("it is {found}, expected {expected}"))
    }

    /// A damaged or unfitting checkpoint.
    pub fn checkpoint(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// A tensor that is missing, damaged or does not fit; `problem` follows its name.
    pub fn tensor(path: impl AsRef<Path>, name: impl Into<String>, problem: impl Display) -> Self {
        let (path, name) = (path.as_ref().to_owned(), name.into());
        let problem = format!("`{name}`: {problem}");
        Self::Tensor { path, name, problem }
    }

    /// A damaged tokenizer.
    pub fn tokenizer(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Tokenizer { path: path.as_ref().to_owned(), problem: problem.into() }
    }

    /// Something that is not supported.
    pub fn unsupported(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unsupported { subject: subject.into(), problem: problem.into() }
    }

    /// An argument that cannot be processed.
    pub fn input(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Input { subject: subject.into(), problem: problem.into() }
    }

    /// One of several texts that cannot be processed.
    pub fn text(index: usize, problem: impl Into<String>) -> Self {
        Self::Text { index, subject: format!("text {index}"), problem: problem.into() }
    }

    /// Something computed, not from one text alone, that is NaN or infinite.
    pub fn not_finite(subject: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::NotFinite { index: None, subject: subject.into(), problem: problem.into() }
    }

    /// If the error is about a configuration, says which file it was read from.
    pub(crate) fn in_config(self, path: &Path) -> Self {
        match self {
            Self::Json { source, .. } => Self::json(path.display())(source),
            Self::Config { key, found, expected, .. } => {
                Self::Config { file: Some(path.to_owned()), key, found, expected }
            }
            Self::Unsupported { subject, problem } => {
                Self::unsupported(format!("{}: {subject}", path.display()), problem)
            }
            other => other,
        }
    }

    /// If the error is about one of the texts of a request, makes it one about that request, called as `name` says for the
    /// number of the text.
    pub(crate) fn in_request(self, request: usize, name: impl FnOnce(usize) -> String) -> Self {
        let mut error = self.with_text_name(name);
        if let Self::Text { index, .. } | Self::NotFinite { index: Some(index), .. } = &mut error {
            *index = request;
        }
        error
    }

    /// If the error is about one of several texts, calls that text as `name` says.
    pub fn with_text_name(mut self, name: impl FnOnce(usize) -> String) -> Self {
        if let Self::Text { index, subject, .. } | Self::NotFinite { index: Some(index), subject, .. } = &mut self {
            *subject = name(*index);
        }
        self
    }
}
