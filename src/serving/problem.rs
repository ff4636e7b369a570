//! Why a request has no answer.

use std::time::Duration;

use super::scheduler::{Failure, Refusal};
use crate::Error;

/// Why a request has no answer. Each kind has its HTTP status, and the name that text-embeddings-inference gives it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The request is not what was expected.
    #[error("{0}")]
    Validation(String),
    /// A text cannot become tokens.
    #[error("{0}")]
    Tokenizer(String),
    /// More than may ever wait, or a body that is too long.
    #[error("{0}")]
    TooLarge(String),
    /// Too much waits.
    #[error("{message}")]
    Overloaded {
        /// What waits.
        message: String,
        /// When there will be room.
        retry_after: Duration,
    },
    /// The model cannot do that, or failed.
    #[error("{0}")]
    Backend(String),
    /// The server failed.
    #[error("{0}")]
    Internal(String),
    /// The deadline passed.
    #[error("{0}")]
    Expired(String),
    /// No key, or a wrong one.
    #[error("the API key is missing or wrong: send it as `Authorization: Bearer KEY`")]
    Unauthorized,
    /// The model is not ready.
    #[error("{0}")]
    Unready(String),
    /// The body did not come in time.
    #[error("{0}")]
    Timeout(String),
    /// There is nothing at this path.
    #[error("there is nothing at this path; /docs lists what there is")]
    NotFound,
    /// The path has other methods.
    #[error("this path has another method; /docs lists them")]
    Method,
}

impl Problem {
    /// All that [`kind`](Self::kind) can say.
    pub const KINDS: [&str; 6] = ["Validation", "Tokenizer", "Overloaded", "Backend", "Unauthorized", "Unhealthy"];

    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Validation(_) | Self::Tokenizer(_) => 422,
            Self::TooLarge(_) => 413,
            Self::Overloaded { .. } => 429,
            Self::Backend(_) => 424,
            Self::Internal(_) => 500,
            Self::Expired(_) => 504,
            Self::Unauthorized => 401,
            Self::Unready(_) => 503,
            Self::Timeout(_) => 408,
            Self::NotFound => 404,
            Self::Method => 405,
        }
    }

    /// Its name in answers and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Validation(_) | Self::TooLarge(_) | Self::Timeout(_) | Self::NotFound | Self::Method => "Validation",
            Self::Tokenizer(_) => "Tokenizer",
            Self::Overloaded { .. } | Self::Expired(_) => "Overloaded",
            Self::Backend(_) | Self::Internal(_) => "Backend",
            Self::Unauthorized => "Unauthorized",
            Self::Unready(_) => "Unhealthy",
        }
    }

    /// A request without any input.
    pub fn no_input() -> Self {
        Self::Validation("the list of inputs is empty, expected at least one".into())
    }

    /// What went wrong before the model: the request's fault.
    pub fn of_encoding(error: &Error) -> Self {
        match error {
            Error::Text { .. } => Self::Tokenizer(error.to_string()),
            _ => Self::Validation(error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::TooLarge { .. } => Self::TooLarge(message),
            Refusal::Overloaded { retry_after, .. } => Self::Overloaded { message, retry_after },
            Refusal::Ended => Self::Unready(message),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Expired => Self::Expired(message),
            Failure::Model(_) => Self::Backend(message),
            Failure::Panicked => Self::Internal(message),
        }
    }
}
