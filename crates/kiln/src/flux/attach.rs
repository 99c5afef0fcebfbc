//! Following a job: its events, its output, its end.

use super::{
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    ids,
    output::Printer,
    signals,
};
use kiln_jobs::{
    core::exit_code,
    proto::{Entry, Failure, FailureKind, LogName, OutputEvent, Reply, Request, Timed, WAIT_MS_MAX},
};
use kiln_types::{IdSet, JobId, Timestamp};
use serde_json::Value;
use std::{
    io::{self, Read},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

/// How long after the first ctrl-C a second one cancels.
const INTERRUPT_WINDOW: Duration = Duration::from_secs(2);

/// The most bytes of standard input in one request.
const STDIN_BYTES_MAX: usize = 64 << 10;

/// Pieces of standard input that are read ahead.
const STDIN_QUEUE: usize = 4;

/// What to show of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Put the task's number before each line.
    pub(super) label: bool,
    /// The job's own events, on standard error.
    pub(super) events: bool,
    /// The events of its execution, on standard error.
    pub(super) exec: bool,
    /// Standard input goes to these tasks; none: it is not read.
    pub(super) stdin: Option<Stdin>,
    /// Nothing but the end is wanted.
    pub(super) quiet: bool,
    /// The job's own events are followed up to this one, by default `finish`. When that comes before the tasks' end,
    /// the exit code is 1, as Flux has it: how they ended is not seen.
    pub(super) wait_event: Option<String>,
    /// Say so when the job waits for resources, on standard error.
    pub(super) status: bool,
}

/// Which tasks read what the command reads.
#[derive(Debug, Clone)]
pub(super) enum Stdin {
    /// Every one.
    All,
    /// These.
    Tasks(IdSet),
}

/// What ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its tasks, with this wait status.
    Finished(i32),
    /// An exception, before any task ran.
    Never,
}

/// Follows the job to its end; gives the exit code of its worst task, or 1 when no task ran.
pub(super) async fn attach(broker: &Broker, id: JobId, view: &View) -> Result<Code, Fail> {
    let (begin, begun) = watch::channel(None);
    let cursor = Mutex::new(Cursor { next: 0, printer: Printer::new(view.label) });
    let main = follow_main(broker, id, view, begin, &cursor);
    let rest = async {
        let mut start = begun.clone();
        let submitted = start.wait_for(Option::is_some).await.ok().and_then(|begun| *begun);
        let Some(Begun { submitted, .. }) = submitted else { return Ok(()) };
        let output = follow_output(broker, id, view, &cursor);
        let exec = follow_exec(broker, id, view, submitted);
        tokio::try_join!(output, exec).map(|_| ())
    };
    let input = feed(broker, id, view, begun.clone());
    let followed = async { tokio::try_join!(main, rest) };
    tokio::select! {
        ended = followed => {
            match ended {
                Ok((end, ())) => Ok(tell_end(end, view.quiet)),
                Err(failure) => end_unread(broker, id, view, failure).await,
            }
        }
        problem = input => Err(problem),
        problem = interrupts(broker, id), if view.stdin.is_some() => Err(problem),
    }
}

/// What the first events tell the others who follow.
#[derive(Debug, Clone, Copy)]
struct Begun {
    submitted: Timestamp,
    running: bool,
}

async fn follow_main(
    broker: &Broker,
    id: JobId,
    view: &View,
    begin: watch::Sender<Option<Begun>>,
    cursor: &Mutex<Cursor>,
) -> Result<End, Failure> {
    let (mut from, mut end) = (0, None);
    let until = view.wait_event.as_deref();
    let mut tell_status = view.status;
    loop {
        let (entries, finished) = events(broker, id, LogName::Main, from).await?;
        from += entries.len() as u64;
        for entry in &entries {
            let submitted = begin.borrow().map_or(entry.at, |begun| begun.submitted);
            locked(cursor).printer.count_from(submitted);
            let running = entry.name == "start" || begin.borrow().is_some_and(|begun| begun.running);
            begin.send_replace(Some(Begun { submitted, running }));
            if entry.name == "exception" && !view.quiet {
                // What the tasks or their shell said before it is shown before it.
                print_output(broker, id, cursor, 0).await?;
            }
            tell_event(view, id, submitted, entry);
            if entry.name == "finish" {
                end = context(entry)["status"].as_i64().map(|status| End::Finished(status as i32));
            }
            if until == Some(entry.name.as_str()) {
                return Ok(end.unwrap_or(End::Never));
            }
        }
        let waits = !begin.borrow().is_some_and(|begun| begun.running) && !finished;
        if std::mem::take(&mut tell_status) && waits {
            eprintln!("flux-job: {} waiting for resources", ids::show(id));
        }
        match end {
            Some(end) if finished || !(view.events || until.is_some()) => return Ok(end),
            None if finished => return Ok(End::Never),
            _ => {}
        }
    }
}

fn context(entry: &Entry) -> Value {
    serde_json::from_str(&entry.context).unwrap_or_default()
}

fn since(submitted: Timestamp, at: Timestamp) -> f64 {
    at.since(submitted).as_secs_f64()
}

fn tell_event(view: &View, id: JobId, submitted: Timestamp, entry: &Entry) {
    let seconds = since(submitted, entry.at);
    if entry.name == "exception" {
        let context = context(entry);
        let word = |name: &str| context[name].as_str().unwrap_or_default().to_owned();
        let (kind, note, severity) = (word("type"), word("note"), &context["severity"]);
        eprintln!("{seconds:.3}s: job.exception {} type={kind} severity={severity} {note}", ids::show(id));
    } else if view.events {
        tell_entry("job", seconds, entry);
    }
}

fn tell_entry(prefix: &str, seconds: f64, entry: &Entry) {
    let blank = if entry.context.is_empty() { "" } else { " " };
    eprintln!("{seconds:.3}s: {prefix}.{}{blank}{}", entry.name, entry.context);
}

async fn follow_exec(broker: &Broker, id: JobId, view: &View, submitted: Timestamp) -> Result<(), Failure> {
    let (mut from, mut finished) = (0, !view.exec);
    while !finished {
        let (entries, last) = events(broker, id, LogName::Exec, from).await?;
        from += entries.len() as u64;
        for entry in &entries {
            tell_entry("exec", since(submitted, entry.at), entry);
        }
        finished = last;
    }
    Ok(())
}

/// The output of a job as far as it is printed.
struct Cursor {
    /// Number of the next piece to print.
    next: u64,
    printer: Printer,
}

impl Cursor {
    /// Prints what is new of the pieces that begin with number `from`.
    fn print(&mut self, from: u64, pieces: &[Timed<OutputEvent>]) -> Result<(), Failure> {
        let known = usize::try_from(self.next.saturating_sub(from)).unwrap_or(usize::MAX);
        let new = pieces.get(known..).unwrap_or_default();
        self.next += new.len() as u64;
        let printed =
            new.iter().try_for_each(|piece| self.printer.print(piece)).and_then(|()| self.printer.flush());
        printed.map_err(|error| closed_output(&error))
    }
}

fn locked(cursor: &Mutex<Cursor>) -> MutexGuard<'_, Cursor> {
    cursor.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for output and prints it; gives whether nothing comes after it.
async fn print_output(
    broker: &Broker,
    id: JobId,
    cursor: &Mutex<Cursor>,
    wait_ms: u32,
) -> Result<bool, Failure> {
    let from = locked(cursor).next;
    match broker.ask_again(&Request::Output { id, from, wait_ms }).await? {
        Reply::Output { pieces, finished } => locked(cursor).print(from, &pieces).map(|()| finished),
        other => Err(unexpected(&other)),
    }
}

async fn follow_output(
    broker: &Broker,
    id: JobId,
    view: &View,
    cursor: &Mutex<Cursor>,
) -> Result<(), Failure> {
    while !view.quiet && !print_output(broker, id, cursor, WAIT_MS_MAX).await? {}
    Ok(())
}

/// The failure's text when whoever reads our output has gone.
const READER_GONE: &str = "nobody reads the output any more";

fn closed_output(error: &io::Error) -> Failure {
    let gone = error.kind() == io::ErrorKind::BrokenPipe;
    let text = if gone { READER_GONE.to_owned() } else { format!("write of the job's output: {error}") };
    Failure::new(FailureKind::Internal, text)
}

/// Ends the command when nobody reads its output any more: quietly, a broken pipe is no error. A job that was run for
/// that output is canceled, else it would write on for nobody.
async fn end_unread(broker: &Broker, id: JobId, view: &View, failure: Failure) -> Result<Code, Fail> {
    if failure.text != READER_GONE {
        return Err(Fail::plain("flux-job", failure));
    }
    if view.stdin.is_some() {
        let note = READER_GONE.to_owned();
        let _ = broker.ask(&Request::Raise { id, kind: "cancel".into(), severity: 0, note }).await;
    }
    Ok(0)
}

/// The events from number `from` on, and whether nothing comes after them; waits for at least one.
pub(super) async fn events(
    broker: &Broker,
    id: JobId,
    log: LogName,
    from: u64,
) -> Result<(Vec<Entry>, bool), Failure> {
    match broker.ask_again(&Request::Events { id, log, from, wait_ms: WAIT_MS_MAX }).await? {
        Reply::Events { entries, finished } => Ok((entries, finished)),
        other => Err(unexpected(&other)),
    }
}

/// Says how the tasks ended, and gives the exit code.
fn tell_end(end: End, quiet: bool) -> Code {
    let End::Finished(status) = end else { return 1 };
    if let Some(text) = end_text(status).filter(|_| !quiet) {
        eprintln!("flux-job: task(s) {text}");
    }
    exit_code(status) as Code
}

/// `Killed` or `exited with exit code 3`; none when all is well.
pub(super) fn end_text(wait_status: i32) -> Option<String> {
    match exit_code(wait_status) {
        0 => None,
        code if code > 128 => Some(signals::description(code - 128)),
        code => Some(format!("exited with exit code {code}")),
    }
}

/// Sends standard input to the job's tasks once they run. Returns only when something is wrong.
async fn feed(broker: &Broker, id: JobId, view: &View, mut begun: watch::Receiver<Option<Begun>>) -> Fail {
    let Some(to) = &view.stdin else { return std::future::pending().await };
    let tasks = match to {
        Stdin::All => None,
        Stdin::Tasks(tasks) => Some(tasks.clone()),
    };
    if begun.wait_for(|begun| begun.is_some_and(|begun| begun.running)).await.is_err() {
        return std::future::pending().await;
    }
    let mut pieces = read_stdin();
    while let Some(data) = pieces.recv().await {
        let eof = data.is_empty();
        let request = Request::Stdin { id, tasks: tasks.clone(), data: data.into(), eof };
        match broker.ask(&request).await {
            Err(failure) if failure.kind != FailureKind::State => return Fail::plain("flux-job", failure),
            // The tasks have ended: nobody reads it any more.
            Err(_) => break,
            Ok(_) if eof => break,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

/// Reads standard input on a thread of its own, since a terminal blocks; an empty piece is its end.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, receive) = mpsc::channel(STDIN_QUEUE);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut buffer = vec![0; STDIN_BYTES_MAX];
            let read = stdin.read(&mut buffer).unwrap_or(0);
            buffer.truncate(read);
            if pieces.blocking_send(buffer).is_err() || read == 0 {
                break;
            }
        }
    });
    receive
}

/// The first ctrl-C warns, the second cancels the job; SIGTERM goes to the tasks. Returns only when something is wrong.
async fn interrupts(broker: &Broker, id: JobId) -> Fail {
    let handlers = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = handlers else { return std::future::pending().await };
    let mut first: Option<Instant> = None;
    loop {
        let request = tokio::select! {
            _ = interrupt.recv() => {
                if first.is_none_or(|first| first.elapsed() > INTERRUPT_WINDOW) {
                    first = Some(Instant::now());
                    eprintln!("flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach");
                    continue;
                }
                Request::Raise { id, kind: "cancel".into(), severity: 0, note: "interrupted by ctrl-C".into() }
            }
            _ = terminate.recv() => Request::Kill { id, signal: 15 },
        };
        if let Err(failure) = broker.ask(&request).await {
            eprintln!("flux-job: {failure}");
        }
    }
}

/// Waits for the job's end and shows nothing; gives the exit code, and the wait status when tasks ran.
pub(super) async fn wait(broker: &Broker, id: JobId) -> Result<(Code, Option<i32>), Failure> {
    let (mut from, mut status) = (0, None);
    loop {
        let (entries, finished) = events(broker, id, LogName::Main, from).await?;
        from += entries.len() as u64;
        let finish = entries.iter().find(|entry| entry.name == "finish");
        status =
            finish.and_then(|entry| context(entry)["status"].as_i64()).map(|status| status as i32).or(status);
        if finished {
            return Ok((status.map_or(1, |status| exit_code(status) as Code), status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_tasks_ended() {
        assert_eq!(end_text(0), None);
        assert_eq!(end_text(3 << 8).unwrap(), "exited with exit code 3");
        assert_eq!(end_text(9).unwrap(), "Killed");
        assert_eq!(end_text((128 + 15) << 8).unwrap(), "Terminated");
        assert_eq!(end_text(14).unwrap(), "Alarm clock");
    }

    #[test]
    fn exit_codes() {
        for (end, code) in
            [(End::Finished(0), 0), (End::Finished(9), 137), (End::Finished(127 << 8), 127), (End::Never, 1)]
        {
            assert_eq!(tell_end(end, true), code);
        }
    }
}
