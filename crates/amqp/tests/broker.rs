//! The broker over a real socket with Kiln's own client, on a disk that goes away with the test.
#![expect(clippy::unwrap_used, reason = "a test may end where something is not as it should be")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_amqp::client::{Client, ClientError, Endpoint};
use kiln_amqp::wire::{Properties, QueueDeclare, ShortStr, Table};
use kiln_amqp::{AmqpMachine, Broker, Handle, Settings};
use kiln_auth::{Auth, AuthMachine};
use kiln_log::Volume;
use kiln_net::{ShutdownTrigger, shutdown_pair};
use kiln_store::Store;
use kiln_world::{RealClock, RealDisk, RealRng};
use tempfile::TempDir;

struct Running {
    broker: Broker,
    handle: Handle,
    endpoint: Endpoint,
    _store: Store,
    _stop: ShutdownTrigger,
}

async fn start(dir: &TempDir, settings: Settings) -> Running {
    let volume = Volume::start(Arc::new(RealDisk::new(dir.path()).unwrap()), Arc::new(RealClock::new()));
    let builder = Store::builder(volume.clone(), "store").machine(AuthMachine).machine(AmqpMachine);
    let store = builder.open().unwrap();
    let rng = Arc::new(RealRng);
    let auth = Auth::open(store.handle(), rng.clone(), kiln_auth::Settings::default()).await.unwrap();
    let broker = Broker::start(volume, store.handle(), auth, rng, settings).await.unwrap();
    let (stop, shutdown) = shutdown_pair();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = broker.serve(listener, shutdown).unwrap();
    let endpoint = Endpoint::guest(handle.address().to_string());
    Running { broker, handle, endpoint, _store: store, _stop: stop }
}

/// Far more than memory may hold: bodies, transient and persistent, are read back from the log in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_beyond_memory_comes_back_in_order() {
    const COUNT: usize = 3000;
    let dir = TempDir::new().unwrap();
    let running = start(&dir, Settings { memory_bytes_max: 64 << 10, ..Settings::default() }).await;
    let client = Client::connect(&running.endpoint).await.unwrap();
    let channel = client.channel().await.unwrap();
    let (exchange, queue) = (ShortStr::default(), ShortStr::from_static("backlog"));
    channel.declare_durable("backlog").await.unwrap();
    channel.confirm_select().await.unwrap();
    let mut last = None;
    for n in 0..COUNT {
        let properties = if n % 3 == 0 { Properties::persistent() } else { Properties::default() }.encode();
        let body = format!("{n:0>500}");
        last =
            Some(channel.publish_confirmed(&exchange, &queue, &properties, body.as_bytes()).await.unwrap());
    }
    last.unwrap().await.unwrap();
    let info = running.broker.queues().into_iter().find(|info| info.name == "backlog").unwrap();
    assert_eq!(info.ready, COUNT);
    assert!(info.memory_bytes <= 64 << 10, "{info:?}");
    channel.qos(100, false).await.unwrap();
    let mut consumer = channel.consume("backlog", false).await.unwrap();
    for n in 0..COUNT {
        let message = consumer.next().await.unwrap();
        assert_eq!(message.body, format!("{n:0>500}"));
        assert!(!message.redelivered);
        channel.ack(message.delivery_tag, false).unwrap();
    }
    client.close().await.unwrap();
    assert!(running.handle.drain(Duration::from_secs(10)).await);
}

/// The calls that the rest of Kiln uses.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_from_inside() {
    let dir = TempDir::new().unwrap();
    let running = start(&dir, Settings::default()).await;
    let broker = &running.broker;
    broker.declare_queue("/", "inside", Table::new()).await.unwrap();
    let body = Bytes::from_static(b"task");
    let routed = broker.publish("/", "", "inside", &Properties::persistent(), body.clone()).await.unwrap();
    assert_eq!(routed, 1);
    assert_eq!(broker.publish("/", "", "nowhere", &Properties::persistent(), body).await.unwrap(), 0);
    let client = Client::connect(&running.endpoint).await.unwrap();
    let channel = client.channel().await.unwrap();
    let mut consumer = channel.consume("inside", true).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().body, "task");
    assert_eq!(broker.connections().len(), 1);
    assert_eq!(broker.connections()[0].channels, 1);
    assert!(broker.close_connection(broker.connections()[0].id, "for a test"));
    let closed = consumer.next().await.unwrap_err();
    assert!(matches!(closed, ClientError::ConnectionClosed { code: 320, .. }), "{closed}");
    assert_eq!(broker.purge("/", "inside").unwrap(), 0);
    assert_eq!(broker.delete("/", "inside", kiln_amqp::Conditions::default()).await.unwrap(), 0);
    assert!(broker.purge("/", "inside").is_err());
}

/// A refused call closes the channel, not the connection, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn errors_reach_the_caller() {
    let dir = TempDir::new().unwrap();
    let running = start(&dir, Settings::default()).await;
    let client = Client::connect(&running.endpoint).await.unwrap();
    let channel = client.channel().await.unwrap();
    let passive =
        QueueDeclare { queue: ShortStr::from_static("x"), passive: true, ..QueueDeclare::default() };
    let refused = channel.declare_queue(passive).await.unwrap_err();
    assert!(matches!(refused, ClientError::ChannelClosed { code: 404, .. }), "{refused}");
    client.channel().await.unwrap().declare_durable("y").await.unwrap();
    let wrong = Endpoint { password: "wrong".to_owned(), ..running.endpoint.clone() };
    let refused = Client::connect(&wrong).await.unwrap_err();
    assert!(matches!(refused, ClientError::ConnectionClosed { code: 403, .. }), "{refused}");
}
