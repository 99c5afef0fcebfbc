//! PRI: facility and severity in one number (RFC 5424, 6.2.1).

/// Severity names by number, 0 `emerg` to 7 `debug`.
pub const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Facility names by number, 0 `kern` to 23 `local7`. Numbers 12 to 15 have no agreed short name; these are glibc-style inventions of RFC 5424's table.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alerting", "clock", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];

/// A priority value, 0 to 191.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority(u8);

impl Priority {
    /// `user.notice`: what a line without PRI gets (RFC 3164, 4.3.3).
    pub const USER_NOTICE: Priority = Priority(13);
    /// `local0.info`: what Kiln's own lines carry.
    pub const LOCAL0_INFO: Priority = Priority(134);
    const MAX: u16 = 191;

    /// The priority with this number; `None` above 191.
    pub fn from_value(value: u16) -> Option<Priority> {
        (value <= Self::MAX).then_some(Priority(value as u8))
    }

    /// The number as it stands between `<` and `>`.
    pub fn value(self) -> u8 {
        self.0
    }

    /// 0 to 23, see [`FACILITIES`].
    pub fn facility(self) -> u8 {
        self.0 / 8
    }

    /// 0 (worst) to 7, see [`SEVERITIES`].
    pub fn severity(self) -> u8 {
        self.0 % 8
    }
}

/// Splits `<PRI>` off the front. Without a valid one the line is returned whole.
pub(super) fn split(line: &str) -> (Option<Priority>, &str) {
    let Some((digits, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return (None, line);
    };
    let valid = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse().ok().filter(|_| valid).and_then(Priority::from_value) {
        Some(priority) => (Some(priority), rest),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_valid_priority_only() {
        assert_eq!(split("<165>x"), (Priority::from_value(165), "x"));
        assert_eq!(split("<0>"), (Priority::from_value(0), ""));
        for line in ["<192>x", "<>x", "<1a>x", "<0001>x", "13>x", "<+1>x", "x"] {
            assert_eq!(split(line), (None, line));
        }
    }

    #[test]
    fn facility_and_severity() {
        let local4_notice = Priority::from_value(165).unwrap();
        assert_eq!((local4_notice.facility(), local4_notice.severity()), (20, 5));
    }
}
