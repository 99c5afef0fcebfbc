//! One connection: plain syslog or RELP, told apart by the first frame.

use super::intake::{Intake, Work};
use crate::syslog::relp::{self, Malformed, Request, Txnr};
use crate::syslog::stream::{Decoder, Item};
use kiln_net::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One read; its lines become one batch.
const READ_BYTES: usize = 64 * 1024;

/// What the frames of one read ask for.
#[derive(Default)]
struct Asked {
    answers: Vec<u8>,
    /// To be acknowledged once their lines are safe; at most one for each frame of a read.
    unacknowledged: Vec<Txnr>,
    closing: bool,
}

/// Serves until the peer is done or it is time to stop. The next read waits until the lines of this one are safe: that is what holds a fast sender back.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    intake: &Intake,
    mut stop: Shutdown,
) {
    let mut decoder = Decoder::new(intake.limits.frame_bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    let mut work = intake.work();
    loop {
        let read = tokio::select! {
            () = stop.wait() => return,
            read = stream.read(&mut buffer) => read,
        };
        let count = match read {
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(%error, "syslog connection broke");
                0
            }
        };
        let mut asked = Asked::default();
        let decoded = take(&mut decoder, &buffer[..count], intake, &mut work, &mut asked);
        if intake.deliver(&mut work, &stop).await.is_err() {
            return; // not acknowledged: a RELP sender gives these again
        }
        for txnr in &asked.unacknowledged {
            relp::acknowledge(*txnr, &mut asked.answers);
        }
        if !asked.answers.is_empty() && stream.write_all(&asked.answers).await.is_err() {
            return;
        }
        if let Err(error) = decoded {
            intake.malformed();
            tracing::warn!(%error, "closing a connection that breaks RELP's rules");
            return;
        }
        if count == 0 || asked.closing {
            return;
        }
    }
}

/// Decides on all frames of a read; an empty one is the end of the stream.
fn take(
    decoder: &mut Decoder,
    input: &[u8],
    intake: &Intake,
    work: &mut Work,
    asked: &mut Asked,
) -> Result<(), Malformed> {
    let mut emit = |item: Item<'_>| match item {
        Item::Syslog(frame) => intake.line(frame.bytes, frame.truncated, work),
        Item::Relp(frame) => match relp::receive(frame, &mut asked.answers) {
            Request::Syslog(frame) => {
                intake.line(frame.data, frame.truncated, work);
                asked.unacknowledged.push(frame.txnr);
            }
            Request::Close => asked.closing = true,
            Request::Open | Request::Refused | Request::Ignored => {}
        },
    };
    if input.is_empty() {
        decoder.finish(&mut emit);
        return Ok(());
    }
    decoder.feed(input, &mut emit)
}
