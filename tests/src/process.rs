//! Running a command to its end, with its output at hand for messages.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a running command is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A command that takes longer hangs.
const WITHIN: Duration = Duration::from_mins(2);

/// What a command did.
#[derive(Debug)]
pub struct Output {
    /// As a person would type it.
    pub command: String,
    /// Its exit code, or 128 and the signal that ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\n{}{}[exit code {}]", self.command, self.stdout, self.stderr, self.code)
    }
}

impl Output {
    /// Itself, when the command ended with 0.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// Itself, when the command ended with `code`.
    #[must_use]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The lines of standard output, sorted: tasks on several nodes print in any order.
    pub fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self.stdout.lines().collect();
        lines.sort_unstable();
        lines
    }

    /// Checks that both streams together contain `text`.
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "{text:?} is not in:\n{self}");
        self
    }
}

/// Runs `command` to its end, without standard input.
pub fn run(command: &mut Command) -> Output {
    run_within(command, WITHIN)
}

/// [`run`], with a time of its own.
pub fn run_within(command: &mut Command, within: Duration) -> Output {
    let shown = shown(command);
    let started = Instant::now();
    // A group of its own, so that what it started ends with it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start {shown}: {error}"));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let code = wait(&mut child, started, within);
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let output =
        Output { command: shown, code: code.unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) };
    assert!(code.is_some(), "ended after {} s without an end of its own: {output}", within.as_secs());
    output
}

/// The command's exit code; none when it had to be killed.
fn wait(child: &mut Child, started: Instant, within: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        if started.elapsed() > within {
            // It may have ended in this moment, which is as good.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut stream = stream.expect("the stream is piped");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is to show.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_kept() {
        let output = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).code(3);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(output.command, "sh -c 'echo out; echo err >&2; exit 3'");
    }

    #[test]
    fn a_signal_is_told_as_a_shell_tells_it() {
        assert_eq!(run(Command::new("sh").args(["-c", "kill -9 $$"])).code, 137);
    }

    #[test]
    #[should_panic(expected = "without an end of its own")]
    fn a_command_that_hangs_is_ended() {
        run_within(Command::new("sleep").arg("1000"), Duration::from_millis(50));
    }
}
