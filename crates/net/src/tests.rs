//! Client and server against each other over real sockets, and against peers that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;

use crate::wire::{Frame, Kind, STREAM_WINDOW_BYTES};
use crate::{
    AcceptLimits, Call, CallError, CallOptions, Client, Fault, Limits, Listener, Peer, Replies, ServeLimits,
    Server, Service, Status, serve,
};

#[derive(Serialize, Deserialize)]
enum Ask {
    Echo(String),
    WhoAmI,
    Count { items: u32, bytes: usize },
    Hang,
    Refuse,
}

/// Counts what happened so that tests can wait for it.
#[derive(Default)]
struct Desk {
    sent: AtomicUsize,
    hanging: AtomicUsize,
    changed: Notify,
}

struct Hanging<'a>(&'a Desk);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.hanging.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Service for Desk {
    async fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.decode()? {
            Ask::Echo(text) => replies.last(&text, call.bulk.clone()).await,
            Ask::WhoAmI => match call.peer {
                Peer::Local { uid, pid } => replies.last(&(uid, pid), Bytes::new()).await,
                Peer::Remote(address) => replies.last(&address.port(), Bytes::new()).await,
            },
            Ask::Count { items, bytes } => {
                for item in 0..items {
                    replies.item(&item, Bytes::from(vec![0; bytes])).await?;
                    self.sent.fetch_add(1, Ordering::SeqCst);
                    self.changed.notify_waiters();
                }
                Ok(())
            }
            Ask::Hang => {
                self.hanging.fetch_add(1, Ordering::SeqCst);
                let _guard = Hanging(self);
                self.changed.notify_waiters();
                std::future::pending().await
            }
            Ask::Refuse => Err(Fault::new(Status::Denied, "not for you")),
        }
    }
}

impl Desk {
    /// Waits until `holds`; the runtime's test timeout is what fails a test that waits for ever.
    async fn until(&self, holds: impl Fn(&Desk) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(self) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
        }
    }
}

struct House {
    desk: Arc<Desk>,
    server: Server,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn house(limits: ServeLimits) -> House {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("rpc");
    let desk = Arc::new(Desk::default());
    let server = serve(Listener::bind_unix(&path).expect("bind"), limits, Arc::clone(&desk));
    House { desk, server, path, _dir: dir }
}

impl House {
    async fn client(&self) -> Client {
        Client::connect_unix(&self.path).await.expect("connect")
    }
}

#[tokio::test]
async fn calls_carry_body_and_bulk_both_ways() {
    let house = house(ServeLimits::default());
    let options = CallOptions { bulk: Bytes::from(vec![7; 300_000]), deadline: None };
    let (text, bulk): (String, Bytes) =
        house.client().await.call_with(&Ask::Echo("hello".into()), options).await.expect("echo");
    assert_eq!((text.as_str(), bulk.len()), ("hello", 300_000));
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let house = house(ServeLimits::default());
    let client = house.client().await;
    let hang = client.stream::<_, ()>(&Ask::Hang).await.expect("hang");
    let calls = (0..200).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.call::<_, String>(&Ask::Echo(n.to_string())).await.expect("echo") })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.expect("joined"), n.to_string());
    }
    drop(hang);
}

#[tokio::test]
async fn the_kernel_names_a_local_peer() {
    let house = house(ServeLimits::default());
    let (uid, pid): (u32, i32) = house.client().await.call(&Ask::WhoAmI).await.expect("who");
    assert_eq!((uid, pid), (nix::unistd::getuid().as_raw(), std::process::id() as i32));
}

#[tokio::test]
async fn tcp_carries_the_same_calls() {
    let listener = Listener::Tcp(TcpListener::bind("127.0.0.1:0").await.expect("bind"));
    let address = listener.tcp_address().expect("an address");
    let _server = serve(listener, ServeLimits::default(), Arc::new(Desk::default()));
    let client = Client::connect_tcp(address).await.expect("connect");
    assert_eq!(client.call::<_, String>(&Ask::Echo("tcp".into())).await.expect("echo"), "tcp");
}

#[tokio::test]
async fn a_stream_is_whole_and_in_order() {
    let house = house(ServeLimits::default());
    let mut stream =
        house.client().await.stream::<_, u32>(&Ask::Count { items: 500, bytes: 4096 }).await.expect("stream");
    let mut seen = 0;
    while let Some(item) = stream.next().await {
        let (n, bulk) = item.expect("item");
        assert_eq!((n, bulk.len()), (seen, 4096));
        seen += 1;
    }
    assert_eq!(seen, 500);
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_stream_only() {
    let house = house(ServeLimits::default());
    let client = house.client().await;
    let mut slow = client.stream::<_, u32>(&Ask::Count { items: 1000, bytes: 4096 }).await.expect("stream");
    let in_window = (STREAM_WINDOW_BYTES / 4096) as usize;
    house.desk.until(|desk| desk.sent.load(Ordering::SeqCst) >= in_window - 2).await;
    assert_eq!(client.call::<_, String>(&Ask::Echo("beside".into())).await.expect("echo"), "beside");
    let sent = house.desk.sent.load(Ordering::SeqCst);
    assert!(sent <= in_window, "{sent} items left while nobody read");
    let mut items = 0;
    while slow.next().await.is_some() {
        items += 1;
    }
    assert_eq!(items, 1000);
}

#[tokio::test]
async fn an_item_larger_than_the_window_still_passes() {
    let house = house(ServeLimits::default());
    let mut stream = house
        .client()
        .await
        .stream::<_, u32>(&Ask::Count { items: 3, bytes: STREAM_WINDOW_BYTES as usize * 2 })
        .await
        .expect("stream");
    let mut items = 0;
    while let Some(item) = stream.next().await {
        item.expect("item");
        items += 1;
    }
    assert_eq!(items, 3);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_at_the_server() {
    let house = house(ServeLimits::default());
    let client = house.client().await;
    let hang = client.stream::<_, ()>(&Ask::Hang).await.expect("hang");
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 1).await;
    drop(hang);
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 0).await;
    assert!(!client.is_closed());
}

#[tokio::test]
async fn a_lost_connection_cancels_its_calls() {
    let house = house(ServeLimits::default());
    let client = house.client().await;
    let hang = client.stream::<_, ()>(&Ask::Hang).await.expect("hang");
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 1).await;
    std::mem::forget(hang);
    client.abort_for_test();
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_deadline_ends_the_call_on_both_sides() {
    let house = house(ServeLimits::default());
    let options = CallOptions { deadline: Some(Duration::from_millis(30)), ..CallOptions::default() };
    let answer = house.client().await.call_with::<_, ()>(&Ask::Hang, options).await;
    assert!(matches!(
        answer,
        Err(CallError::Deadline(_) | CallError::Refused { status: Status::DeadlineExceeded, .. })
    ));
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn refusals_carry_status_and_words() {
    let house = house(ServeLimits { calls_max: 1, ..ServeLimits::default() });
    let client = house.client().await;
    let refused = client.call::<_, ()>(&Ask::Refuse).await.expect_err("refused");
    assert!(matches!(&refused, CallError::Refused { status: Status::Denied, text } if text == "not for you"));
    let garbled = client.call::<_, ()>(&99u64).await.expect_err("refused");
    assert!(matches!(garbled, CallError::Refused { status: Status::BadRequest, .. }));
}

#[tokio::test]
async fn calls_over_the_limit_are_busy() {
    let house = house(ServeLimits { calls_max: 1, ..ServeLimits::default() });
    let client = house.client().await;
    let _hang = client.stream::<_, ()>(&Ask::Hang).await.expect("hang");
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 1).await;
    let busy = client.call::<_, String>(&Ask::Echo("x".into())).await.expect_err("busy");
    assert!(matches!(busy, CallError::Refused { status: Status::Busy, .. }));
}

#[tokio::test]
async fn garbage_truncated_and_oversized_frames_close_the_connection() {
    let house = house(ServeLimits {
        frame: Limits { body_bytes_max: 64, bulk_bytes_max: 64 },
        ..ServeLimits::default()
    });
    let mut oversized = Vec::new();
    let mut header = Frame::bare(Kind::Request, 1, 0).header();
    header.body_len = u32::MAX;
    header.encode(&mut oversized);
    let mut from_server = Vec::new();
    Frame::bare(Kind::Item, 1, 0).header().encode(&mut from_server);
    let truncated = oversized[..10].to_vec();
    for (bytes, half_close) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n-".to_vec(), false),
        (oversized, false),
        (from_server, false),
        (truncated, true),
    ] {
        let mut stream = UnixStream::connect(&house.path).await.expect("connect");
        stream.write_all(&bytes).await.expect("write");
        if half_close {
            stream.shutdown().await.expect("shutdown");
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    assert_eq!(
        house.client().await.call::<_, String>(&Ask::Echo("still".into())).await.expect("echo"),
        "still"
    );
}

#[tokio::test]
async fn a_request_over_the_limit_is_not_sent() {
    let house = house(ServeLimits::default());
    let client = house.client().await;
    let huge = CallOptions { bulk: Bytes::from(vec![0; 17 << 20]), deadline: None };
    let refused =
        client.call_with::<_, String>(&Ask::Echo(String::new()), huge).await.expect_err("too large");
    assert!(matches!(refused, CallError::Encode(_)));
}

#[tokio::test]
async fn a_server_that_ignores_the_window_is_cut_off() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("rpc");
    let listener = tokio::net::UnixListener::bind(&path).expect("bind");
    let client = Client::connect_unix(&path).await.expect("connect");
    let (mut peer, _) = listener.accept().await.expect("accept");
    let mut stream = client.stream::<_, u32>(&Ask::Hang).await.expect("stream");
    let item = Frame { bulk: Bytes::from(vec![0; 60_000]), ..Frame::bare(Kind::Item, 1, 0) };
    for _ in 0..10 {
        let mut bytes = Vec::new();
        item.header().encode(&mut bytes);
        bytes.extend_from_slice(&item.bulk);
        if peer.write_all(&bytes).await.is_err() {
            break;
        }
    }
    client.closed().await;
    let mut last = None;
    while let Some(item) = stream.next_raw().await {
        last = Some(item);
    }
    assert!(matches!(last, Some(Err(CallError::Closed))));
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_permit() {
    let house = house(ServeLimits { accept: AcceptLimits { connections_max: 1 }, ..ServeLimits::default() });
    let first = house.client().await;
    first.call::<_, String>(&Ask::Echo("one".into())).await.expect("echo");
    let second = house.client().await;
    let waiting = tokio::spawn(async move { second.call::<_, String>(&Ask::Echo("two".into())).await });
    first.call::<_, String>(&Ask::Echo("one".into())).await.expect("echo");
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.expect("joined").expect("echo"), "two");
}

#[tokio::test]
async fn drain_cuts_what_does_not_end_and_frees_the_rest() {
    let house = house(ServeLimits::default());
    let (idle, busy) = (house.client().await, house.client().await);
    idle.call::<_, String>(&Ask::Echo("x".into())).await.expect("echo");
    let _hang = busy.stream::<_, ()>(&Ask::Hang).await.expect("hang");
    house.desk.until(|desk| desk.hanging.load(Ordering::SeqCst) == 1).await;
    assert_eq!(house.server.drain(Duration::from_millis(50)).await, 1);
    idle.closed().await;
    busy.closed().await;
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let house = house(ServeLimits::default());
    assert_eq!(Listener::bind_unix(&house.path).expect_err("in use").kind(), std::io::ErrorKind::AddrInUse);
    house.server.drain(Duration::ZERO).await;
    Listener::bind_unix(&house.path).expect("the stale file is replaced");
}
