//! The loop of one task's PMI socket.

use std::os::unix::net::UnixStream as StdUnixStream;

use pmi::wire::{LINE_BYTES_MAX, Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// A request of a task, and where its answer goes. Dropping `answer` closes the socket.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// Reads requests until the task closes the socket or breaks the protocol. `deliver` hands each one on; `false` from it
/// means that nobody listens any more.
pub(crate) async fn serve<Delivered: Future<Output = bool>>(
    stream: StdUnixStream,
    mut deliver: impl FnMut(Asked) -> Delivered,
) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut lines = BufReader::with_capacity(LINE_BYTES_MAX, UnixStream::from_std(stream)?);
    let mut line = String::new();
    loop {
        line.clear();
        (&mut lines).take(LINE_BYTES_MAX as u64).read_line(&mut line).await?;
        let Some(text) = line.strip_suffix('\n') else { return Ok(()) };
        let request = match Request::parse(text) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%error, "a task's PMI request");
                return Ok(());
            }
        };
        let (answer, answered) = oneshot::channel();
        if !deliver(Asked { request, answer }).await {
            return Ok(());
        }
        // An abort and the end of the job have no answer.
        let Ok(response) = answered.await else { return Ok(()) };
        lines.get_mut().write_all(response.to_string().as_bytes()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[tokio::test]
    async fn answers_in_turn_and_hangs_up_on_nonsense() {
        let (ours, theirs) = StdUnixStream::pair().expect("a socket pair");
        let task = tokio::task::spawn_blocking(move || {
            let mut theirs = theirs;
            theirs.write_all(b"cmd=get_appnum\nnonsense\n").expect("write");
            let mut all = String::new();
            theirs.read_to_string(&mut all).expect("read");
            all
        });
        serve(ours, |asked| {
            assert_eq!(asked.request, Request::GetAppnum);
            asked.answer.send(Response::Appnum(0)).expect("it waits");
            std::future::ready(true)
        })
        .await
        .expect("a conversation");
        assert_eq!(task.await.expect("joined"), "cmd=appnum rc=0 appnum=0\n");
    }
}
