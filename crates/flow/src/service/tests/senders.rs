//! Real senders against the real listener: util-linux `logger`, Python's `SysLogHandler`, rsyslog. A program that is not installed is noted.

use super::*;
use crate::syslog::{Message, Received, parse};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Runs a program to its end; false when there is no such program.
async fn run(program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).stdin(Stdio::null()).status().await {
        Ok(status) => {
            assert!(status.success(), "{program} {args:?}");
            true
        }
        Err(error) => {
            eprintln!("note: {program} cannot be run ({error}); not tested against it");
            false
        }
    }
}

fn read(line: &str) -> Message<'_> {
    parse(line, Received::at(kiln_types::Timestamp(1_795_341_600_000_000)))
}

#[tokio::test]
async fn logger_in_all_its_ways() {
    let harness = start(chain(flow(r#"appname == "kilntest""#, to_topic()))).await;
    let (tcp, udp) = (harness.tcp.port().to_string(), harness.udp.port().to_string());
    let mut sent = 0;
    for (port, transport) in [(&udp, "-d"), (&tcp, "-T")] {
        for form in ["--rfc5424", "--rfc3164"] {
            for counted in [None, Some("--octet-count")] {
                if transport == "-d" && counted.is_some() {
                    continue;
                }
                let text = format!("{transport} {form} {counted:?}");
                let mut args = vec![
                    "-n",
                    "127.0.0.1",
                    "-P",
                    port,
                    transport,
                    form,
                    "-t",
                    "kilntest",
                    "-p",
                    "local3.warning",
                ];
                args.extend(counted);
                args.extend(["--", &text]);
                if !run("logger", &args).await {
                    return;
                }
                sent += 1;
                harness.world.until("all", sent).await;
                let lines = values(&harness.world, "all");
                let message = read(lines.last().unwrap());
                assert_eq!((message.appname, message.message), ("kilntest", text.as_str()));
                assert_eq!((message.priority.facility(), message.priority.severity()), (19, 4));
                assert!(!message.hostname.is_empty() && message.timestamp.is_some());
            }
        }
    }
    let sd = ["-n", "127.0.0.1", "-P", &tcp, "-T", "--rfc5424", "--octet-count", "-t", "kilntest"];
    run(
        "logger",
        &[&sd[..], &["--sd-id", "zoo@123", "--sd-param", "tiger=\"hungry\"", "--msgid", "ID7", "text"]]
            .concat(),
    )
    .await;
    harness.world.until("all", sent + 1).await;
    let lines = values(&harness.world, "all");
    let message = read(lines.last().unwrap());
    assert_eq!(message.structured.get("zoo@123", "tiger").as_deref(), Some("hungry"));
    assert_eq!(message.msgid, "ID7");
}

#[tokio::test]
async fn pythons_handler_with_its_nul() {
    let harness = start(chain(flow("true", to_topic()))).await;
    let script = "
import logging, logging.handlers, socket, sys
for port, kind in ((int(sys.argv[1]), socket.SOCK_STREAM), (int(sys.argv[2]), socket.SOCK_DGRAM)):
    handler = logging.handlers.SysLogHandler(('127.0.0.1', port), 'local1', socktype=kind)
    for number in range(3):
        handler.emit(logging.makeLogRecord({'msg': f'app: number {number}', 'levelno': 40, 'levelname': 'ERROR'}))
    handler.close()
";
    let (tcp, udp) = (harness.tcp.port().to_string(), harness.udp.port().to_string());
    if !run("python3", &["-c", script, &tcp, &udp]).await {
        return;
    }
    harness.world.until("all", 6).await;
    for line in values(&harness.world, "all") {
        let message = read(&line);
        assert_eq!(
            (message.priority.facility(), message.priority.severity(), message.appname),
            (17, 3, "app")
        );
        assert!(message.message.starts_with("number "), "{line:?}");
    }
}

/// An rsyslog that reads datagrams from `socket` and forwards by `action`.
fn rsyslog(directory: &std::path::Path, action: &str) -> Option<Child> {
    let work = directory.display();
    let config = format!(
        "global(workDirectory=\"{work}\")\nmodule(load=\"omrelp\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{work}/log\" CreatePath=\"on\" RateLimit.Interval=\"0\")\n{action}\n"
    );
    std::fs::write(directory.join("rsyslog.conf"), config).unwrap();
    let (file, pid) = (format!("{work}/rsyslog.conf"), format!("{work}/pid"));
    let child = Command::new("rsyslogd")
        .args(["-n", "-f", &file, "-i", &pid])
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    child.inspect_err(|error| eprintln!("note: rsyslogd cannot be run ({error}); not tested against it")).ok()
}

#[tokio::test]
async fn rsyslog_by_both_framings_and_by_relp() {
    const COUNT: usize = 500;
    for kind in ["counted", "lines", "relp"] {
        let harness = start(chain(flow(r#"appname == "kilntest""#, to_topic()))).await;
        let port = harness.tcp.port();
        let target = format!("target=\"127.0.0.1\" port=\"{port}\"");
        let action = match kind {
            "counted" => format!(
                "action(type=\"omfwd\" {target} protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\")"
            ),
            "lines" => {
                format!("action(type=\"omfwd\" {target} protocol=\"tcp\" TCP_Framing=\"traditional\")")
            }
            _ => format!("action(type=\"omrelp\" {target} template=\"RSYSLOG_SyslogProtocol23Format\")"),
        };
        let directory = tempfile::tempdir().unwrap();
        let Some(_child) = rsyslog(directory.path(), &action) else { return };
        let socket = directory.path().join("log");
        harness.world.until_true(|| socket.exists()).await;
        let sender = tokio::net::UnixDatagram::unbound().unwrap();
        for number in 0..COUNT {
            let line = format!("<14>Nov 22 10:00:00 kilntest[7]: number {number}");
            sender.send_to(line.as_bytes(), &socket).await.unwrap();
        }
        harness.world.until("all", COUNT).await;
        let lines = values(&harness.world, "all");
        let numbers: Vec<_> = lines
            .iter()
            .map(|line| {
                read(line).message.trim_start().trim_start_matches("number ").parse::<usize>().unwrap()
            })
            .collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "{kind}");
        assert_eq!(read(&lines[0]).procid, "7", "{}", lines[0]);
    }
}
