//! Virtual hosts that come and go, and permissions that change, while clients are connected.

mod support;

use std::path::Path;

use kiln_amqp::wire::{Method, QueueDeclare, ShortStr, Table};
use kiln_auth::Permissions;
use kiln_world::Disk;
use support::{Machine, wait_until};

/// A virtual host works as soon as it is made; deleting it closes its connections and removes its queues, and one of
/// the same name that follows at once is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_vhost_comes_and_goes() {
    let machine = Machine::start().await;
    for round in 0..3 {
        machine.auth.add_vhost("lab").await.unwrap();
        machine.auth.set_permissions("guest", "lab", Permissions::full()).await.unwrap();
        let mut client = machine.client("lab").await;
        let mut other = machine.client("/").await;
        assert!(machine.broker.queues().is_empty(), "round {round}: queues of the former one");
        client.declare("work", Table::new()).await;
        client.confirm_select().await;
        client.publish("work", b"message").await;
        client.wait_for(|method| matches!(method, Method::BasicAck(_))).await;
        assert!(!machine.disk.list(Path::new("amqp/lab")).unwrap().is_empty());

        machine.auth.delete_vhost("lab").await.unwrap();
        if round == 2 {
            let closed = client.wait_for(|method| matches!(method, Method::ConnectionClose(_))).await;
            let Method::ConnectionClose(close) = closed else { unreachable!() };
            assert_eq!(close.code, 320);
            assert_eq!(close.text.as_str(), "CONNECTION_FORCED - vhost 'lab' is deleted");
        }
        // The others are not disturbed.
        other.declare("other", Table::new()).await;
        machine.broker.delete("/", "other", kiln_amqp::Conditions::default()).await.unwrap();
    }
    wait_until("the virtual host's files stay", || {
        machine.disk.list(Path::new("amqp/lab")).unwrap().is_empty()
    })
    .await;
    machine.auth.add_vhost("lab").await.unwrap();
    let machine = machine.restart(false).await;
    assert!(machine.broker.queues().is_empty(), "the store remembers queues of a deleted virtual host");
}

/// What is left of a virtual host that was deleted while the broker was down, or that no list knows, goes at the start.
#[tokio::test(flavor = "multi_thread")]
async fn directories_that_nobody_knows_are_removed() {
    let machine = Machine::start().await;
    let mut client = machine.client("/").await;
    client.declare("kept", Table::new()).await;
    client.confirm_select().await;
    client.publish("kept", b"message").await;
    client.wait_for(|method| matches!(method, Method::BasicAck(_))).await;
    for dir in ["amqp/gone/queue-1/messages", "amqp/%2F/gone-1/messages"] {
        machine.disk.create_dir_all(Path::new(dir)).unwrap();
    }
    let machine = machine.restart(false).await;
    let names = |dir: &str| machine.disk.list(Path::new(dir)).unwrap().len();
    assert_eq!((names("amqp"), names("amqp/%2F")), (1, 1));
    assert_eq!(machine.broker.queues()[0].ready, 1);
}

/// A permission that is taken away stops a publisher in the middle of publishing over a route it used before.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_taken_away_stops_a_publisher() {
    let machine = Machine::start().await;
    let mut client = machine.client("/").await;
    client.declare("work", Table::new()).await;
    client.confirm_select().await;
    for tag in 1..=2 {
        client.publish("work", b"message").await;
        client.wait_for(|method| matches!(method, Method::BasicAck(ack) if ack.delivery_tag == tag)).await;
    }
    let read_only = Permissions { configure: String::new(), write: String::new(), read: ".*".to_owned() };
    machine.auth.set_permissions("guest", "/", read_only).await.unwrap();
    client.publish("work", b"message").await;
    let closed = client.wait_for(|method| matches!(method, Method::ChannelClose(_))).await;
    let Method::ChannelClose(close) = closed else { unreachable!() };
    assert_eq!(close.code, 403, "{close:?}");
    assert_eq!(machine.broker.queues()[0].ready, 2);
}

/// Closed channels are not counted.
#[tokio::test(flavor = "multi_thread")]
async fn open_channels_are_counted() {
    let machine = Machine::start().await;
    let mut client = machine.client("/").await;
    client.send(5, kiln_amqp::wire::ChannelOpen::default()).await;
    client.wait_for(|method| matches!(method, Method::ChannelOpenOk(_))).await;
    client.declare("work", Table::new()).await;
    assert_eq!(machine.broker.connections()[0].channels, 2);
    // An error closes a channel too.
    let queue = ShortStr::from_static("missing");
    client.send(5, QueueDeclare { queue, passive: true, ..QueueDeclare::default() }).await;
    client.wait_for(|method| matches!(method, Method::ChannelClose(_))).await;
    client.declare("work", Table::new()).await;
    assert_eq!(machine.broker.connections()[0].channels, 1);
}
