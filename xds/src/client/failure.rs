//! Why there is no stream, or no longer: one line for people.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use tonic::Code;

use crate::{
    convert::{brief, start},
    framing::FramingError,
};

/// Why there is no stream, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read the {what} {path:?}: {source}")]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the {what} {path:?} {why}")]
    Content { what: &'static str, path: PathBuf, why: &'static str },
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("its certificate is not accepted with the root certificates of {root:?}: {why}")]
    Certificate { root: PathBuf, why: String },
    #[error("it does not speak TLS; is it an http:// address? ({0})")]
    NotTls(String),
    #[error("it does not speak gRPC: {0}")]
    Protocol(String),
    #[error("the connection was lost before it answered; does it speak gRPC, and in the clear with http://? ({0})")]
    Unanswered(String),
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("it gives no sign of life: {0}")]
    Dead(String),
    #[error("it refuses who we are ({code:?}): {message}{hint}")]
    Refused { code: Code, message: String, hint: String },
    #[error("it ended the stream ({code:?}): {message}")]
    Ended { code: Code, message: String },
    #[error("it sent what cannot be read: {0}")]
    Framing(#[from] FramingError),
}

impl Failure {
    /// Explains why a connection could not be opened.
    pub(super) fn connect(error: &dyn Error, root: &Path) -> Self {
        let why = chain(error);
        if why.contains("invalid peer certificate") {
            return Self::Certificate { root: root.to_owned(), why };
        }
        if why.contains("InvalidContentType") {
            return Self::NotTls(why);
        }
        Self::Connect(why)
    }

    /// Explains why a stream broke before the server had said anything on it.
    pub(super) fn unanswered(error: &dyn Error) -> Self {
        // What HTTP/2 objects to when the bytes are not HTTP/2.
        let strange = ["frame with invalid size", "unspecific protocol error", "invalid preface"];
        match Self::broken(error) {
            Self::Lost(why) if strange.iter().any(|text| why.contains(text)) => Self::Protocol(why),
            Self::Lost(why) => Self::Unanswered(why),
            other => other,
        }
    }

    /// Explains why a stream broke.
    pub(super) fn broken(error: &dyn Error) -> Self {
        let why = chain(error);
        if why.contains("keep-alive timed out") { Self::Dead(why) } else { Self::Lost(why) }
    }

    /// Explains why the server ended the stream; `token` is the file of the token that was sent.
    pub(super) fn status(status: &tonic::Status, token: Option<&Path>) -> Self {
        let (code, message) = (status.code(), brief(status.message()).escape_debug().to_string());
        match code {
            Code::Unauthenticated | Code::PermissionDenied => {
                let hint = token.map(|path| format!("; the token sent is that of {path:?}")).unwrap_or_default();
                Self::Refused { code, message, hint }
            }
            _ => Self::Ended { code, message },
        }
    }

    /// The server does not take requests as long as the first one.
    pub(super) fn is_too_long(&self) -> bool {
        matches!(self, Self::Ended { code: Code::ResourceExhausted, .. })
    }

    /// What makes it another failure than the last: its line, or for those whose details vary by chance its kind.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Connect(_) => "connect".to_owned(),
            Self::Unanswered(_) | Self::Protocol(_) => "unanswered".to_owned(),
            Self::Lost(_) | Self::Dead(_) => "lost".to_owned(),
            other => other.to_string(),
        }
    }

    /// The connection was cut without a word.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Unanswered(_))
    }
}

/// Returns an error and its causes in one line, each part once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    start(&parts.join(": "), 400).escape_debug().to_string()
}
