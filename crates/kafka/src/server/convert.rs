//! Between the messages' types and our own.

use crate::broker::AdminError;
use crate::wire::ErrorCode;
use kafka_protocol::protocol::StrBytes;

/// A string for a message.
pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// What an administrator is told: the code, and the reason in words.
pub(super) fn outcome<T>(result: &Result<T, AdminError>) -> (ErrorCode, Option<StrBytes>) {
    match result {
        Ok(_) => (ErrorCode::None, None),
        Err(error) => (error.code(), Some(text(error.to_string()))),
    }
}

/// Notes that the store or a log failed, of which the client learns only the code.
pub(super) fn storage_error(error: &dyn std::error::Error) -> ErrorCode {
    tracing::error!(%error, "request failed");
    ErrorCode::KafkaStorageError
}
