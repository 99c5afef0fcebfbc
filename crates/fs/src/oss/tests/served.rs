//! The targets of a node over a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_net::blocking::{Call, Connection, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_net::{Fault, Peer};

use super::super::{Label, Oss, Ost};
use super::{A, label, refused, request, write_op};
use crate::access::check_peer;
use crate::core::{Errno, OstIndex};
use crate::wire::oss::{Op, Reply, Request};

struct Node(Oss);

impl Service for Node {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        check_peer(call.peer)?;
        self.0.handle(&call.decode()?, &call, replies)
    }

    fn takes_memory(&self, peer: Peer) -> bool {
        check_peer(peer).is_ok()
    }
}

fn target(dir: &Path, index: u16) -> (Ost, Label) {
    let label = Label { index: OstIndex(index), ..label() };
    let dir = dir.join(index.to_string());
    Ost::format(&dir, &label).expect("it is empty");
    (Ost::open(&dir, &label).expect("it is a target"), label)
}

fn node(dir: &Path) -> (Server, Arc<Node>, Connection) {
    let node = Arc::new(Node(Oss::new()));
    let path = dir.join("sock");
    let listener = Listener::bind_unix(&path).expect("a free path");
    let server = serve(listener, ServeLimits::default(), Arc::clone(&node));
    (server, node, Connection::connect_unix(&path).expect("the server listens"))
}

fn call(connection: &mut Connection, request: &Request, bulk: &[&[u8]]) -> (Reply, Bytes) {
    connection.call(request, bulk).expect("an answer")
}

#[test]
fn data_goes_to_the_disk_and_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (server, node, mut connection) = node(dir.path());
    node.0.add(target(dir.path(), 3).0);
    let bytes: Vec<u8> = (0..4 << 20).map(|at: u32| (at % 253) as u8).collect();
    let (front, back) = bytes.split_at(1000);
    let written = call(&mut connection, &request(write_op(A, 12_345, &bytes)), &[front, back]);
    assert_eq!(written, (Reply::Done, Bytes::new()));

    let read = call(&mut connection, &request(Op::Read { object: A, offset: 12_345, len: 4 << 20 }), &[]);
    assert!(read == (Reply::Data { crc: Some(crc32c::crc32c(&bytes)) }, bytes.into()));

    let damaged = call(&mut connection, &request(write_op(A, 0, b"sent")), &[b"came"]);
    assert_eq!(damaged.0, refused(Errno::EIO));
    let unsummed = Op::Write { object: A, offset: 0, crc: None, sync: false };
    let unsummed = call(&mut connection, &request(unsummed), &[b"whatever came"]);
    assert_eq!(unsummed.0, refused(Errno::EIO));
    assert_eq!(server.stop(Duration::from_secs(30)), 0);
}

#[test]
fn data_goes_to_the_disk_and_back_through_memory_that_is_lent() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (_server, node, mut connection) = node(dir.path());
    node.0.add(target(dir.path(), 3).0);
    connection.lend().expect("the server answers");
    let bytes: Vec<u8> = (0..2 << 20).map(|at: u32| (at % 253) as u8).collect();
    assert!(connection.lends(bytes.len()));
    let (front, back) = bytes.split_at(1000);
    // At whole pages, and not.
    for offset in [0, 12_345] {
        let op = Op::Write { object: A, offset, crc: None, sync: false };
        assert_eq!(call(&mut connection, &request(op), &[front, back]).0, Reply::Done);
        for (from, len, there) in
            [(0, 1 << 20, 1 << 20), (1 << 20, 1 << 20, 1 << 20), ((2 << 20) - 7, 65_536, 7)]
        {
            let op = Op::Read { object: A, offset: offset + from, len };
            connection.send_asking(&request(op), len as usize).expect("it is sent");
            let (reply, read): (Reply, Bytes) = connection.receive().expect("an answer");
            assert_eq!(reply, Reply::Data { crc: None }, "nothing travelled");
            assert!(read == bytes[from as usize..from as usize + there], "{len} bytes from {from}");
        }
    }
    let elsewhere =
        Request { fs: "other".to_owned(), ..request(Op::Read { object: A, offset: 0, len: 1 << 20 }) };
    connection.send_asking(&elsewhere, 1 << 20).expect("it is sent");
    assert_eq!(connection.receive().expect("an answer"), (refused(Errno::ENODEV), Bytes::new()));
}

#[test]
fn targets_come_and_go_while_the_server_runs() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (_server, node, mut connection) = node(dir.path());
    let statfs = |index| Request { ost: OstIndex(index), ..request(Op::Statfs) };
    let is_served = |connection: &mut Connection, index| match call(connection, &statfs(index), &[]).0 {
        Reply::Space(_) => true,
        reply => reply != refused(Errno::ENODEV),
    };
    assert!(!is_served(&mut connection, 1));
    let (first, first_label) = target(dir.path(), 1);
    let (second, second_label) = target(dir.path(), 2);
    node.0.add(first);
    node.0.add(second);
    assert!(is_served(&mut connection, 1) && is_served(&mut connection, 2));
    assert_eq!(node.0.served(), [first_label.clone(), second_label]);
    assert!(node.0.remove("scratch", OstIndex(1)) && !node.0.remove("scratch", OstIndex(1)));
    assert!(!is_served(&mut connection, 1) && is_served(&mut connection, 2));
    // Its lock is free at once.
    node.0.add(Ost::open(&dir.path().join("1"), &first_label).expect("nobody serves it"));
    assert!(is_served(&mut connection, 1));
}

#[test]
fn a_request_that_is_none_is_a_fault() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (_server, node, mut connection) = node(dir.path());
    node.0.add(target(dir.path(), 3).0);
    for garbage in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x07scratch\x03"] {
        connection.call::<_, Reply>(&garbage, &[]).expect_err("it is no request");
    }
    call(&mut connection, &request(Op::Statfs), &[]);
}
