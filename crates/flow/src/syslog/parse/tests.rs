use super::*;
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    rfc3339(text).unwrap()
}

fn read(line: &str) -> Message<'_> {
    parse(line, Received::at(at("2026-11-22T10:00:00Z")))
}

#[test]
fn examples_of_rfc_5424() {
    let m = read(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
    );
    assert_eq!((m.form, m.priority.facility(), m.priority.severity()), (Form::Rfc5424, 4, 2));
    assert_eq!((m.hostname, m.appname, m.procid, m.msgid), ("mymachine.example.com", "su", "", "ID47"));
    assert_eq!(m.message, "'su root' failed for lonvick on /dev/pts/8");
    assert_eq!(m.timestamp, Some(at("2003-10-11T22:14:15.003Z")));

    let m = read(
        "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
    );
    assert_eq!(m.timestamp.unwrap().0 % 1_000_000, 3);
    assert_eq!((m.procid, m.message), ("8710", "%% It's time to make the do-nuts."));

    let m = read(
        r#"<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3"] An application event"#,
    );
    assert_eq!(m.structured.get("exampleSDID@32473", "iut").as_deref(), Some("3"));
    assert_eq!(m.message, "An application event");
}

#[test]
fn a_broken_modern_header_keeps_its_text() {
    let m = read("<34>1 yesterday host app - - - text");
    assert_eq!((m.form, m.message), (Form::Legacy, "1 yesterday host app - - - text"));
    let m = read("<34>1 - - - - - -");
    assert_eq!((m.form, m.message, m.timestamp), (Form::Rfc5424, "", None));
    assert_eq!(m.time(), m.received);
}

#[test]
fn real_legacy_lines() {
    let m = read("Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0 \r\n");
    assert_eq!((m.hostname, m.appname, m.procid), ("combo", "sshd(pam_unix)", "19939"));
    assert_eq!(m.message, "authentication failure; logname= uid=0 ");
    assert_eq!(m.priority, Priority::USER_NOTICE);

    let m = read("<38>Nov  9 12:01:01 dn228/dn228 crond[2916]: (root) CMD (run-parts /etc/cron.hourly)");
    assert_eq!((m.hostname, m.appname, m.procid), ("dn228/dn228", "crond", "2916"));
    let m = read("Nov 9 12:01:01 dn228/dn228 postfix/smtpd: x");
    assert_eq!((m.hostname, m.appname, m.message), ("dn228/dn228", "postfix/smtpd", "x"));

    let m = read("Jul 27 14:41:57 combo kernel: Linux version 2.6.5");
    assert_eq!((m.appname, m.procid, m.message), ("kernel", "", "Linux version 2.6.5"));
    let m = read("Jun 19 04:09:11 combo syslogd 1.4.1: restart.");
    assert_eq!((m.appname, m.message), ("syslogd", "restart."));
    let m = read("Jun 18 04:04:34 combo last message repeated 2 times");
    assert_eq!((m.hostname, m.appname, m.message), ("combo", "", "last message repeated 2 times"));
}

#[test]
fn local_senders_leave_out_the_host_and_some_the_header() {
    let m = read("<13>Nov 22 09:59:59 logger[77]: hello");
    assert_eq!((m.hostname, m.appname, m.procid, m.message), ("", "logger", "77", "hello"));
    let m = read("<14>plain text with http://x and 12:30\0");
    assert_eq!((m.appname, m.message), ("", "plain text with http://x and 12:30"));
    let m = read("<14>myapp: text");
    assert_eq!((m.appname, m.message), ("myapp", "text"));
    let m = read("nothing: at all");
    assert_eq!((m.appname, m.message), ("", "nothing: at all"));
    let m = read("<13>2026-11-22T09:00:00.5+01:00 host tag: rsyslog's forward format");
    assert_eq!((m.timestamp, m.hostname, m.appname), (Some(at("2026-11-22T08:00:00.5Z")), "host", "tag"));
}

#[test]
fn the_year_is_the_latest_that_is_at_most_a_day_ahead() {
    let year_of = |line: &str, now: &str| parse(line, Received::at(at(now))).timestamp.unwrap();
    assert_eq!(year_of("Dec 31 23:59:59 h a: x", "2026-01-01T00:00:05Z"), at("2025-12-31T23:59:59Z"));
    assert_eq!(year_of("Jan  1 00:00:01 h a: x", "2025-12-31T23:59:58Z"), at("2026-01-01T00:00:01Z"));
    assert_eq!(year_of("Nov 22 10:00:00 h a: x", "2026-11-22T09:00:00Z"), at("2026-11-22T10:00:00Z"));
    assert_eq!(year_of("Nov 24 10:00:00 h a: x", "2026-11-22T09:00:00Z"), at("2025-11-24T10:00:00Z"));
    assert_eq!(year_of("Feb 29 10:00:00 h a: x", "2026-11-22T09:00:00Z"), at("2024-02-29T10:00:00Z"));
}

#[test]
fn legacy_time_is_read_in_the_receivers_zone() {
    let received = Received { now: at("2026-11-22T10:00:00Z"), utc_offset_seconds: 3600 };
    assert_eq!(parse("Nov 22 10:30:00 h a: x", received).timestamp, Some(at("2026-11-22T09:30:00Z")));
}

proptest! {
    #[test]
    fn any_text_parses_and_keeps_its_message(line in "\\PC{0,80}", pri in 0u16..200) {
        let line = format!("<{pri}>{line}");
        let m = read(&line);
        prop_assert!(line.contains(m.message));
    }

    #[test]
    fn headers_in_pieces_never_panic(parts in prop::collection::vec("(1|-|Jan|29|\\[a b=\"|\\]|é| |:|12:00:00|2026-02-30T00:00:00Z|\\\\|\")", 0..12)) {
        let line = format!("<13>{}", parts.join(" "));
        read(&line);
        read(&parts.concat());
    }
}
