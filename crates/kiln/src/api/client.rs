//! The command line's side of the API: one request on the instance's Unix socket.

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::model::Problem;
use crate::paths::DataDir;

/// Largest answer that a command reads, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The instance is not there.
#[derive(Debug, thiserror::Error)]
#[error("no instance runs on {data}: {reason}; start one with `kiln up`, or name another with --data")]
pub(crate) struct NotRunning {
    data: String,
    reason: std::io::Error,
}

/// The instance is there, and its leader does not answer: it starts, or is being started again.
#[derive(Debug, thiserror::Error)]
#[error(
    "the instance on {data} is not ready: {reason}; try again in a moment, `kiln status` shows its nodes"
)]
pub(crate) struct NotReady {
    data: String,
    reason: String,
}

/// What the instance refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub String);

/// Asks a question: `path` with its query.
pub(crate) async fn get<T: DeserializeOwned>(data: &DataDir, path: &str) -> anyhow::Result<T> {
    let answer = send(data, Method::GET, path, Bytes::new()).await?;
    serde_json::from_slice(&answer).with_context(|| format!("failed to read the answer to {path}"))
}

/// Asks for a change.
pub(crate) async fn change(
    data: &DataDir,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<Bytes> {
    send(data, method, path, Bytes::from(serde_json::to_vec(body)?)).await
}

async fn send(data: &DataDir, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(data.control_socket()).await.map_err(|error| absent(data, error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "kiln").body(Full::new(body))?;
    // As text: a broken pipe to the instance must not look like one to a reader that has gone away.
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| anyhow::anyhow!("the instance hung up before it answered: {error}"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|e| anyhow::anyhow!("failed to read the answer: {e}"))?
        .to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    Err(refusal(status, &body).into())
}

/// The leader's sockets cannot be reached.
pub(crate) fn absent(data: &DataDir, reason: std::io::Error) -> anyhow::Error {
    let running = crate::supervisor::is_running(data);
    let data = data.root().display().to_string();
    if running {
        NotReady { data, reason: reason.to_string() }.into()
    } else {
        NotRunning { data, reason }.into()
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Refused {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Refused(problem.error),
        Err(_) => Refused(format!("{status}: {}", String::from_utf8_lossy(body))),
    }
}

/// One path segment or query value, escaped.
pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
