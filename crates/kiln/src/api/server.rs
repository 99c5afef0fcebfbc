//! The listeners of the API: hyper on TCP (questions only) and on a Unix socket (the owner's).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_net::{AcceptLimits, Listener, Shutdown, Stream, accept_loop};

use super::ask::{Ask, Fault};
use super::model::Problem;
use super::routes::Routes;

/// Connections served at once on each listener; more wait in the kernel's backlog.
const LIMITS: AcceptLimits = AcceptLimits { connections_max: 256 };
/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 << 20;
/// A client that sends its header more slowly is dropped.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// Who is asking, by the listener they came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anybody who reaches the console's port: may look.
    Visitor,
    /// The owner of the data directory: may change.
    Owner,
}

/// Serves one listener until `shutdown` fires; connections then in progress are cut.
pub(crate) async fn serve(routes: Arc<Routes>, caller: Caller, listener: Listener, shutdown: Shutdown) {
    let connections = accept_loop(listener, shutdown, LIMITS, move |stream, _| {
        connection(stream, Arc::clone(&routes), caller)
    });
    connections.await.drain(Duration::ZERO).await;
}

async fn connection(stream: Stream, routes: Arc<Routes>, caller: Caller) {
    let service = service_fn(move |request| answer(Arc::clone(&routes), caller, request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an API connection ended badly");
    }
}

async fn answer(
    routes: Arc<Routes>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // hyper leaves out the body of the answer.
    let method = if head.method == Method::HEAD { Method::GET } else { head.method };
    if caller == Caller::Visitor {
        // Nothing that a visitor may ask has a body: it is not read, so that it costs nothing.
        let ask = Ask { caller, method, uri: head.uri, body: Bytes::new() };
        return Ok(reply(&routes, ask).await);
    }
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {BODY_BYTES_MAX} bytes"),
        ));
    };
    Ok(reply(&routes, Ask { caller, method, uri: head.uri, body: body.to_bytes() }).await)
}

async fn reply(routes: &Routes, ask: Ask) -> Response<Full<Bytes>> {
    match routes.answer(ask).await {
        Ok((kind, bytes)) => respond(StatusCode::OK, kind, bytes),
        Err(Fault { status, error }) => problem(status, error),
    }
}

fn problem(status: StatusCode, error: String) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(&Problem { error }).expect("a struct of strings is JSON");
    respond(status, "application/json", body.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
