//! Printing a job's output.

use kiln_jobs::proto::{LogLevel, OutputEvent, Stream, Timed};
use kiln_types::Timestamp;
use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// Prints pieces of output as `flux job attach` does.
pub(super) struct Printer<W = io::BufWriter<io::Stdout>, E = io::Stderr> {
    out: W,
    err: E,
    label: bool,
    /// Times are counted from here.
    submitted: Timestamp,
    /// Streams whose last piece did not end a line.
    open_lines: BTreeSet<(Stream, u32)>,
}

impl Printer {
    /// Prints to our own streams.
    pub(super) fn new(label: bool) -> Self {
        Self::to(io::BufWriter::new(io::stdout()), io::stderr(), label)
    }
}

impl<W: Write, E: Write> Printer<W, E> {
    fn to(out: W, err: E, label: bool) -> Self {
        Self { out, err, label, submitted: Timestamp::EPOCH, open_lines: BTreeSet::new() }
    }

    /// Times are shown as counted from here, the job's submission.
    pub(super) fn count_from(&mut self, submitted: Timestamp) {
        self.submitted = submitted;
    }

    /// Prints one piece.
    pub(super) fn print(&mut self, piece: &Timed<OutputEvent>) -> io::Result<()> {
        match &piece.what {
            OutputEvent::Data { stream, task, data, .. } => self.data(*stream, *task, &data.0),
            OutputEvent::Redirect { stream, tasks, path } => {
                writeln!(self.err, "{}: {} redirected to {path}", tasks.bracketed(), stream.name())
            }
            OutputEvent::Log { level, node, text } => {
                let seconds = piece.at.since(self.submitted).as_secs_f64();
                writeln!(self.err, "{seconds:.3}s: flux-shell[{node}]: {}{text}", level_word(*level))
            }
        }
    }

    /// Hands everything on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }

    fn data(&mut self, stream: Stream, task: u32, data: &[u8]) -> io::Result<()> {
        let out: &mut dyn Write = match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        if !self.label {
            return out.write_all(data);
        }
        for line in data.split_inclusive(|&byte| byte == b'\n') {
            if !self.open_lines.remove(&(stream, task)) {
                write!(out, "{task}: ")?;
            }
            out.write_all(line)?;
            if !line.ends_with(b"\n") {
                self.open_lines.insert((stream, task));
            }
        }
        Ok(())
    }
}

fn level_word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Fatal => "FATAL: ",
        LogLevel::Error => "ERROR: ",
        LogLevel::Warning => "WARNING: ",
        LogLevel::Notice => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(label: bool, events: Vec<OutputEvent>) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::to(&mut out, &mut err, label);
        printer.count_from(Timestamp(1_000_000));
        for what in events {
            printer.print(&Timed { at: Timestamp(1_074_000), what }).unwrap();
        }
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn data(task: u32, text: &str) -> OutputEvent {
        OutputEvent::Data { stream: Stream::Stdout, task, data: text.as_bytes().into(), eof: false }
    }

    #[test]
    fn labels_stand_before_lines_and_not_before_their_pieces() {
        let pieces = vec![data(0, "a\nb"), data(1, "x\n"), data(0, "c\n")];
        assert_eq!(printed(true, pieces.clone()).0, "0: a\n0: b1: x\nc\n");
        assert_eq!(printed(false, pieces).0, "a\nbx\nc\n");
    }

    #[test]
    fn redirects_and_messages_go_to_standard_error() {
        let redirect = |tasks: &str| OutputEvent::Redirect {
            stream: Stream::Stdout,
            tasks: tasks.parse().unwrap(),
            path: "out.txt".into(),
        };
        let log = |level, text: &str| OutputEvent::Log { level, node: 0, text: text.into() };
        let (out, err) = printed(
            false,
            vec![
                redirect("0-1"),
                redirect("0"),
                log(LogLevel::Fatal, "task 0 (host vm): start failed"),
                log(LogLevel::Notice, "signal: soon"),
            ],
        );
        assert_eq!(out, "");
        assert_eq!(
            err,
            "[0-1]: stdout redirected to out.txt\n0: stdout redirected to out.txt\n\
             0.074s: flux-shell[0]: FATAL: task 0 (host vm): start failed\n0.074s: flux-shell[0]: signal: soon\n"
        );
    }
}
