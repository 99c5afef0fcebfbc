//! A broker on a simulated disk, and a client that speaks the wire.

mod messages;

pub(crate) use messages::{decode_response, simplest_body};

use kiln_kafka::{Broker, Handle, KafkaMachine, Parts, Settings};
use kiln_log::Volume;
use kiln_log::batch::{Builder, Record};
use kiln_net::ShutdownTrigger;
use kiln_store::Store;
use kiln_world::{RealClock, RealRng, SimDisk};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A machine with a disk, a store and a broker.
pub(crate) struct Machine {
    pub(crate) broker: Broker,
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    pub(crate) volume: Volume,
    disk: Arc<SimDisk>,
    store: Store,
    _trigger: ShutdownTrigger,
}

impl Machine {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::on(Arc::new(SimDisk::new(7)), settings).await
    }

    async fn on(disk: Arc<SimDisk>, settings: Settings) -> Self {
        let volume = Volume::start(disk.clone(), Arc::new(RealClock::new()));
        let store = Store::builder(volume.clone(), "store").machine(KafkaMachine).open().unwrap();
        let parts =
            Parts { volume: volume.clone(), store: store.handle(), auth: None, rng: Arc::new(RealRng) };
        let broker = Broker::start(parts, settings).await.unwrap();
        let (trigger, shutdown) = kiln_net::shutdown_pair();
        let handle = broker.serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), shutdown);
        let address = handle.address().unwrap();
        Self { broker, handle, address, volume, disk, store, _trigger: trigger }
    }

    /// Pulls the plug: what was not synced may be lost. Then starts again.
    pub(crate) async fn crash_and_restart(self, settings: Settings) -> Self {
        self.disk.crash_after_syncs(0);
        self.handle.drain(Duration::ZERO).await;
        drop((self.broker, self.store));
        self.volume.close();
        self.disk.crash();
        Self::on(self.disk, settings).await
    }
}

/// A connection that speaks requests of any kind.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    pub(crate) async fn send(&mut self, key: i16, version: i16, flexible: bool, body: &[u8]) {
        let mut request = Vec::new();
        request.extend(key.to_be_bytes());
        request.extend(version.to_be_bytes());
        request.extend(1_i32.to_be_bytes());
        request.extend(b"\0\x04test");
        if flexible {
            request.push(0);
        }
        request.extend(body);
        self.stream.write_all(&(request.len() as i32).to_be_bytes()).await.unwrap();
        self.stream.write_all(&request).await.unwrap();
    }

    /// Bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The response behind its correlation id; none if the connection is closed instead.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).await.ok()?;
        let mut answer = vec![0; i32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut answer).await.ok()?;
        assert_eq!(answer[..4], 1_i32.to_be_bytes());
        Some(answer.split_off(4))
    }

    pub(crate) async fn ask(
        &mut self,
        key: i16,
        version: i16,
        flexible: bool,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        self.send(key, version, flexible, body).await;
        self.receive().await
    }
}

/// A batch of these values.
pub(crate) fn batch(values: &[&str]) -> Vec<u8> {
    batch_of(values, None)
}

/// A batch of an idempotent producer: id, epoch, number of the first record.
pub(crate) fn batch_of(values: &[&str], producer: Option<(i64, i16, i32)>) -> Vec<u8> {
    let mut builder = Builder::new(1_700_000_000_000);
    if let Some((id, epoch, sequence)) = producer {
        builder.producer(id, epoch, sequence);
    }
    for value in values {
        let time_ms = 1_700_000_000_000;
        builder.push(&Record { value: Some(value.as_bytes()), time_ms, ..Record::default() });
    }
    builder.finish()
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// `Produce` 7 to partition 0 of a topic.
pub(crate) fn produce_body(acks: i16, topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1_i16).to_be_bytes());
    body.extend(acks.to_be_bytes());
    body.extend(30_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    body
}

/// Error and base offset of the answer to [`produce_body`].
pub(crate) fn produce_outcome(answer: &[u8], topic: &str) -> (i16, i64) {
    let at = 4 + 2 + topic.len() + 4 + 4;
    let error = i16::from_be_bytes(answer[at..at + 2].try_into().unwrap());
    (error, i64::from_be_bytes(answer[at + 2..at + 10].try_into().unwrap()))
}

/// `Fetch` 11 of partition 0 of a topic.
pub(crate) fn fetch_body(topic: &str, offset: i64, wait_ms: i32, bytes_min: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [-1, wait_ms, bytes_min, 1 << 20] {
        body.extend(number.to_be_bytes());
    }
    body.push(0);
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend((1_i32 << 20).to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    string(&mut body, "");
    body
}

/// Error, high watermark and records of the answer to [`fetch_body`].
pub(crate) fn fetch_outcome(answer: &[u8], topic: &str) -> (i16, i64, Vec<u8>) {
    let at = 4 + 2 + 4 + 4 + 2 + topic.len() + 4 + 4;
    let error = i16::from_be_bytes(answer[at..at + 2].try_into().unwrap());
    let high_watermark = i64::from_be_bytes(answer[at + 2..at + 10].try_into().unwrap());
    (error, high_watermark, answer[at + 2 + 24 + 4 + 4 + 4..].to_vec())
}
