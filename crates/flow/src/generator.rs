//! A syslog that looks real: logins, cron, kernel and daemons on a few hosts, with tasks strewn among them. Pure: the same seed gives the same lines.

use crate::syslog::{Line, Priority, format_time};
use kiln_types::Timestamp;
use std::time::Duration;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Lines in all.
    pub lines: u64,
    /// Tasks among them; no more than `lines`.
    pub tasks: u64,
    /// Chooses everything that is random.
    pub seed: u64,
    /// The time of the first line.
    pub start: Timestamp,
    /// From one line to the next.
    pub spacing: Duration,
    /// Task names with their arguments, as lines write them; one is chosen for each task. `{}` is replaced by a number from 1 to 1,000,000.
    pub commands: Vec<String>,
}

/// The lines, without terminators.
#[derive(Clone, Debug)]
pub struct Lines {
    spec: Spec,
    random: SplitMix,
    line: u64,
    task: u64,
}

/// Generates the lines of `spec`.
pub fn generate(spec: Spec) -> Lines {
    let random = SplitMix(spec.seed);
    Lines { spec, random, line: 0, task: 0 }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): good enough for noise, and the same everywhere.
#[derive(Clone, Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1; 0 for 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len() as u64) as usize]
    }
}

impl Iterator for Lines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let left = self.spec.lines.checked_sub(self.line).filter(|left| *left > 0)?;
        let at = Timestamp(self.spec.start.0 + self.spec.spacing.as_micros() as i64 * self.line as i64);
        let tasks_left = self.spec.tasks.min(self.spec.lines) - self.task;
        self.line += 1;
        // As likely as there are tasks left among the lines left: the number comes out exactly.
        if self.random.below(left) < tasks_left { Some(self.task_line(at)) } else { Some(self.noise(at)) }
    }
}

impl Lines {
    fn task_line(&mut self, at: Timestamp) -> String {
        self.task += 1;
        let commands = &self.spec.commands;
        let command =
            commands.get(self.random.below(commands.len() as u64) as usize).map_or("", String::as_str);
        let number = (1 + self.random.below(1_000_000)).to_string();
        let message = format!("TASK t-{:06} {}", self.task, command.replace("{}", &number));
        Line {
            priority: Priority::LOCAL0_INFO,
            timestamp: at,
            hostname: "silicon1",
            appname: "taskd",
            procid: "",
            msgid: "",
            structured: &[],
            message: &message,
        }
        .to_string()
    }

    fn noise(&mut self, at: Timestamp) -> String {
        let host = self.random.pick(&["web1", "web2", "db1", "login1", "nfs1"]);
        let process = 1000 + self.random.below(30_000);
        let (priority, tag, message) = match self.random.below(8) {
            0..=2 => (86, format!("sshd[{process}]"), self.login()),
            3 => (
                78,
                format!("CRON[{process}]"),
                "(root) CMD (test -x /usr/sbin/anacron || run-parts /etc/cron.hourly)".to_owned(),
            ),
            4 => (6, "kernel".to_owned(), self.kernel()),
            5 => (
                30,
                "systemd[1]".to_owned(),
                format!("Started Session {} of User root.", self.random.below(9000)),
            ),
            6 => {
                (22, format!("postfix/smtpd[{process}]"), format!("connect from unknown[{}]", self.address()))
            }
            _ => (
                85,
                format!("sudo[{process}]"),
                "  root : TTY=pts/0 ; PWD=/root ; USER=root ; COMMAND=/usr/bin/true".to_owned(),
            ),
        };
        format!("<{priority}>{} {host} {tag}: {message}", legacy_time(at))
    }

    fn login(&mut self) -> String {
        let (user, address, port) = (self.user(), self.address(), 1024 + self.random.below(60_000));
        match self.random.below(4) {
            0 => format!("Accepted publickey for {user} from {address} port {port} ssh2"),
            1 => format!("Failed password for {user} from {address} port {port} ssh2"),
            2 => format!("Failed password for invalid user {user} from {address} port {port} ssh2"),
            _ => format!("pam_unix(sshd:session): session opened for user {user} by (uid=0)"),
        }
    }

    fn kernel(&mut self) -> String {
        let uptime = self.random.below(900_000);
        match self.random.below(3) {
            0 => format!("[{uptime}.118231] eth0: link up, 10000Mbps, full-duplex"),
            1 => format!("[{uptime}.402219] EXT4-fs (vda1): re-mounted. Opts: errors=remount-ro"),
            _ => format!(
                "[{uptime}.733918] TCP: request_sock_TCP: Possible SYN flooding on port {}.",
                self.random.below(65_536)
            ),
        }
    }

    fn user(&mut self) -> &'static str {
        self.random.pick(&["root", "admin", "oracle", "test", "alice", "bob", "guest"])
    }

    fn address(&mut self) -> String {
        // Addresses for documentation (RFC 5737).
        let net = self.random.pick(&["192.0.2", "198.51.100", "203.0.113"]);
        format!("{net}.{}", 1 + self.random.below(254))
    }
}

/// `Nov 22 10:00:00`, as RFC 3164 writes it.
fn legacy_time(at: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let full = format_time(at);
    let number =
        |from: usize| full.get(from..from + 2).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let clock = full.get(11..19).unwrap_or("00:00:00");
    format!("{} {:>2} {clock}", MONTHS[(number(5) - 1) % 12], number(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::{Received, parse};

    fn spec(lines: u64, tasks: u64) -> Spec {
        let commands = vec!["checksum path=/etc/hostname".to_owned(), "primes number={}".to_owned()];
        let start = Timestamp(1_795_341_600_000_000);
        Spec { lines, tasks, seed: 7, start, spacing: Duration::from_millis(2), commands }
    }

    #[test]
    fn the_numbers_are_exact_and_the_lines_parse() {
        let lines: Vec<String> = generate(spec(5000, 200)).collect();
        assert_eq!(lines.len(), 5000);
        let received = Received::at(spec(0, 0).start);
        let messages: Vec<_> = lines.iter().map(|line| parse(line, received)).collect();
        let tasks: Vec<_> = messages.iter().filter(|m| m.appname == "taskd").collect();
        assert_eq!(tasks.len(), 200);
        assert_eq!(tasks[199].message.split(' ').nth(1), Some("t-000200"));
        assert!(
            messages.iter().all(|m| !m.hostname.is_empty() && !m.appname.is_empty() && m.timestamp.is_some())
        );
        let first = lines.iter().position(|line| line.contains("TASK")).unwrap();
        let last = lines.iter().rposition(|line| line.contains("TASK")).unwrap();
        assert!(first < 200 && last > 4800, "spread over the log: {first} to {last}");
    }

    #[test]
    fn a_seed_is_a_log() {
        let all = |seed| generate(Spec { seed, ..spec(50, 5) }).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert_eq!(generate(spec(3, 9)).filter(|line| line.contains("TASK")).count(), 3);
    }
}
