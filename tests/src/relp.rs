//! A sender of syslog over RELP that resends what was not acknowledged: what it returns from is stored.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Lines sent and not yet acknowledged (rsyslog's default window).
const WINDOW: usize = 128;
/// A receiver that says nothing for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Sends `lines` in order, each until it is acknowledged, through as many connections as it takes. `address` is asked before each connection. `pause` is called
/// before each line that is sent for the first time.
pub fn send(lines: &[String], address: impl Fn() -> String, mut pause: impl FnMut(usize)) {
    let mut acknowledged = 0;
    let mut paced = 0;
    while acknowledged < lines.len() {
        let mut before_line = |index: usize| {
            if index >= paced {
                paced = index + 1;
                pause(index);
            }
        };
        // An error is a connection that died: whatever was not acknowledged is sent again on the next one.
        let _ = session(&address(), lines, &mut acknowledged, &mut before_line);
        if acknowledged < lines.len() {
            std::thread::sleep(RECONNECT);
        }
    }
}

fn session(
    address: &str,
    lines: &[String],
    acknowledged: &mut usize,
    before_line: &mut impl FnMut(usize),
) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut answers = BufReader::new(stream);
    out.write_all(&frame(1, "open", "relp_version=0\nrelp_software=kiln-tests\ncommands=syslog"))?;
    answer(&mut answers)?;
    let mut waiting: VecDeque<usize> = VecDeque::new();
    let mut next = *acknowledged;
    while *acknowledged < lines.len() {
        if next < lines.len() && waiting.len() < WINDOW {
            before_line(next);
            out.write_all(&frame(next + 2, "syslog", &lines[next]))?;
            waiting.push_back(next);
            next += 1;
            if next < lines.len() && waiting.len() < WINDOW && answers.buffer().is_empty() {
                continue;
            }
        }
        let (txnr, text) = answer(&mut answers)?;
        let expected = waiting.pop_front();
        if expected.map(|index| index + 2) != Some(txnr) || !text.starts_with("200") {
            return Err(io::Error::other(format!("answer {txnr} {text} while waiting for {expected:?}")));
        }
        *acknowledged += 1;
    }
    out.write_all(&frame(lines.len() + 2, "close", ""))?;
    answer(&mut answers).map(drop)
}

fn frame(txnr: usize, command: &str, data: &str) -> Vec<u8> {
    let separator = if data.is_empty() { "" } else { " " };
    format!("{txnr} {command} {}{separator}{data}\n", data.len()).into_bytes()
}

/// One `TXNR rsp LEN DATA`.
fn answer(answers: &mut BufReader<TcpStream>) -> io::Result<(usize, String)> {
    use std::io::Read as _;
    let mut word = || -> io::Result<String> {
        let mut bytes = Vec::new();
        answers.by_ref().take(20).read_until(b' ', &mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(text) }
    };
    let bad = |what: &str| io::Error::other(format!("a RELP answer with a bad {what}"));
    let txnr = word()?.parse().map_err(|_| bad("number"))?;
    if word()? != "rsp" {
        return Err(bad("command"));
    }
    let length: u64 = word()?.parse().map_err(|_| bad("length"))?;
    let mut data = vec![0; length.min(ANSWER_BYTES_MAX) as usize + 1];
    answers.read_exact(&mut data)?;
    Ok((txnr, String::from_utf8_lossy(&data).trim_end().to_owned()))
}
