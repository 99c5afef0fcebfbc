//! A broker on a simulated disk, and a client that shows every method the broker sends.
#![expect(clippy::unwrap_used, reason = "a test may end where something is not as it should be")]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use kiln_amqp::wire::{
    BasicPublish, ChannelOpen, ConfirmSelect, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    FrameBatch, FrameKind, Method, PROTOCOL_HEADER, Properties, QueueDeclare, ShortStr, Table,
    complete_frames, encode_body, encode_header, encode_method,
};
use kiln_amqp::{AmqpMachine, Broker, Handle, Settings};
use kiln_auth::{Auth, AuthMachine};
use kiln_log::Volume;
use kiln_net::{ShutdownTrigger, shutdown_pair};
use kiln_store::Store;
use kiln_world::{RealClock, RealRng, SimDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// After this long without an awaited method the broker hangs.
const HANGS_AFTER: Duration = Duration::from_secs(20);
const FRAME_MAX: u32 = 131_072;

/// Waits for what happens by itself; a broker that does not get there hangs, `otherwise` says how.
pub(crate) async fn wait_until(otherwise: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + HANGS_AFTER;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "the broker hangs: {otherwise}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A broker whose queues are on one disk and whose store is on another.
pub(crate) struct Machine {
    pub(crate) broker: Broker,
    pub(crate) auth: Auth,
    /// Of the queues.
    pub(crate) disk: SimDisk,
    /// Of users, exchanges, queues and bindings.
    pub(crate) store_disk: SimDisk,
    handle: Handle,
    volumes: [Volume; 2],
    store: Store,
    _stop: ShutdownTrigger,
}

impl Machine {
    pub(crate) async fn start() -> Self {
        Self::on(SimDisk::new(7), SimDisk::new(8)).await
    }

    async fn on(disk: SimDisk, store_disk: SimDisk) -> Self {
        drop(tracing_subscriber::fmt().with_test_writer().try_init());
        let volume = |disk: &SimDisk| Volume::start(Arc::new(disk.clone()), Arc::new(RealClock::new()));
        let (volume, store_volume) = (volume(&disk), volume(&store_disk));
        let store = Store::builder(store_volume.clone(), "store").machine(AuthMachine).machine(AmqpMachine);
        let store = store.open().unwrap();
        let rng = Arc::new(RealRng);
        let auth = Auth::open(store.handle(), rng.clone(), kiln_auth::Settings::default()).await.unwrap();
        let settings = Settings::default();
        let broker =
            Broker::start(volume.clone(), store.handle(), auth.clone(), rng, settings).await.unwrap();
        let (stop, shutdown) = shutdown_pair();
        let handle = broker.serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), shutdown).unwrap();
        let volumes = [volume, store_volume];
        Self { broker, auth, disk, store_disk, handle, volumes, store, _stop: stop }
    }

    /// Ends the process; with `lose_power`, what was not synced may be lost. Then starts again.
    pub(crate) async fn restart(self, lose_power: bool) -> Self {
        if lose_power {
            self.disk.crash_after_syncs(0);
            self.store_disk.crash_after_syncs(0);
        }
        self.handle.drain(Duration::ZERO).await;
        drop((self.broker, self.auth, self.store));
        self.volumes.iter().for_each(Volume::close);
        if lose_power {
            self.disk.crash();
            self.store_disk.crash();
        }
        Self::on(self.disk, self.store_disk).await
    }

    /// A client of a virtual host.
    pub(crate) async fn client(&self, vhost: &str) -> Client {
        Client::connect(&self.handle, vhost).await
    }
}

/// A connection with a channel 1.
pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
    /// Methods that came and were not asked for yet.
    pub(crate) came: Vec<Method>,
}

impl Client {
    async fn connect(handle: &Handle, vhost: &str) -> Self {
        let stream = TcpStream::connect(handle.address()).await.unwrap();
        let mut client = Self { stream, input: BytesMut::new(), came: Vec::new() };
        client.stream.write_all(&PROTOCOL_HEADER).await.unwrap();
        client.wait_for(|method| matches!(method, Method::ConnectionStart(_))).await;
        let names = ["connection.blocked", "consumer_cancel_notify"];
        let capabilities = names.into_iter().fold(Table::new(), |table, name| table.with(name, true));
        let start = ConnectionStartOk {
            client_properties: Table::new().with("capabilities", capabilities),
            mechanism: ShortStr::from_static("PLAIN"),
            response: bytes::Bytes::from_static(b"\0guest\0guest"),
            locale: ShortStr::from_static("en_US"),
        };
        client.send(0, start).await;
        client.wait_for(|method| matches!(method, Method::ConnectionTune(_))).await;
        client.send(0, ConnectionTuneOk { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 0 }).await;
        let vhost = ShortStr::try_from(vhost).unwrap();
        client.send(0, ConnectionOpen { vhost, ..ConnectionOpen::default() }).await;
        client.wait_for(|method| matches!(method, Method::ConnectionOpenOk(_))).await;
        client.send(1, ChannelOpen::default()).await;
        client.wait_for(|method| matches!(method, Method::ChannelOpenOk(_))).await;
        client
    }

    pub(crate) async fn send(&mut self, channel: u16, method: impl Into<Method>) {
        let mut out = BytesMut::new();
        encode_method(&mut out, channel, &method.into());
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) async fn declare(&mut self, queue: &'static str, arguments: Table) {
        let queue = ShortStr::from_static(queue);
        self.send(1, QueueDeclare { queue, durable: true, arguments, ..QueueDeclare::default() }).await;
        self.wait_for(|method| matches!(method, Method::QueueDeclareOk(_))).await;
    }

    pub(crate) async fn confirm_select(&mut self) {
        self.send(1, ConfirmSelect { no_wait: false }).await;
        self.wait_for(|method| matches!(method, Method::ConfirmSelectOk(_))).await;
    }

    /// Publishes a persistent message to a queue by its name.
    pub(crate) async fn publish(&mut self, queue: &'static str, body: &[u8]) {
        let mut out = BytesMut::new();
        let publish = BasicPublish { routing_key: ShortStr::from_static(queue), ..BasicPublish::default() };
        encode_method(&mut out, 1, &publish.into());
        encode_header(&mut out, 1, body.len() as u64, &Properties::persistent().encode());
        encode_body(&mut out, 1, body, FRAME_MAX);
        self.stream.write_all(&out).await.unwrap();
    }

    /// Reads until such a method came, and gives it; the others stay in `came`.
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&Method) -> bool) -> Method {
        loop {
            if let Some(at) = self.came.iter().position(&wanted) {
                return self.came.remove(at);
            }
            let read = tokio::time::timeout(HANGS_AFTER, self.stream.read_buf(&mut self.input)).await;
            let Ok(read) = read else { panic!("the broker hangs; it sent {:?}", self.came) };
            assert!(read.unwrap() > 0, "the broker hung up; it sent {:?}", self.came);
            let (whole, error) = complete_frames(&self.input, FRAME_MAX);
            assert!(error.is_none(), "{error:?}");
            let mut frames = FrameBatch::new(self.input.split_to(whole).freeze());
            while let Some(frame) = frames.next_frame() {
                if frame.kind == FrameKind::Method {
                    self.came.push(Method::get(&mut frame.reader()).unwrap());
                }
            }
        }
    }
}
