//! A full disk: publishers wait, consumers go on, and nothing that was taken is lost.

mod support;

use kiln_amqp::wire::{BasicAck, BasicConsume, BasicGet, BasicQos, BasicReject, Method, ShortStr, Table};
use support::{Client, Machine, wait_until};

static BODY: [u8; 64 << 10] = [b'x'; 64 << 10];

async fn count(client: &mut Client, wanted: impl Fn(&Method) -> bool) -> usize {
    // Whatever was sent before the answer to this has come then.
    client.send(1, BasicQos { prefetch_size: 0, prefetch_count: 0, global: true }).await;
    client.wait_for(|method| matches!(method, Method::BasicQosOk(_))).await;
    client.came.iter().filter(|method| wanted(method)).count()
}

/// One connection publishes and consumes: while its publishes wait for room, its deliveries and acknowledgements make
/// it. It is told once that it waits and once that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_waits_goes_on_consuming() {
    const BACKLOG: usize = 600;
    let machine = Machine::start().await;
    let mut client = machine.client("/").await;
    client.declare("work", Table::new()).await;
    client.confirm_select().await;
    for _ in 0..BACKLOG {
        client.publish("work", &BODY).await;
    }
    client
        .wait_for(|method| matches!(method, Method::BasicAck(ack) if ack.delivery_tag == BACKLOG as u64))
        .await;
    machine.disk.set_capacity(Some(machine.disk.used_bytes() + 1024));

    client.publish("work", &BODY).await;
    client.wait_for(|method| matches!(method, Method::ConnectionBlocked(_))).await;
    let queue = ShortStr::from_static("work");
    client.send(1, BasicConsume { queue, ..BasicConsume::default() }).await;
    for tag in 1..=BACKLOG as u64 {
        let due = |method: &Method| matches!(method, Method::BasicDeliver(d) if d.delivery_tag == tag);
        client.wait_for(due).await;
        client.send(1, BasicAck { delivery_tag: tag, multiple: false }).await;
    }
    // The queue gave space back. The simulated disk goes on counting removed files, so the space is given here.
    let half = (BACKLOG * BODY.len()) as u64 / 2;
    wait_until("the queue gave no space back", || machine.broker.queues()[0].disk_bytes <= half).await;
    machine.disk.set_capacity(None);
    client.wait_for(|method| matches!(method, Method::ConnectionUnblocked(_))).await;
    let confirmed = BACKLOG as u64 + 1;
    client.wait_for(|method| matches!(method, Method::BasicAck(ack) if ack.delivery_tag == confirmed)).await;
    client.wait_for(|method| matches!(method, Method::BasicDeliver(d) if d.delivery_tag == confirmed)).await;
    let told =
        |method: &Method| matches!(method, Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_));
    assert_eq!(count(&mut client, told).await, 0, "it was told more than once");
}

/// Messages published while the disk is full are confirmed in order once there is space, and are told of once however
/// often the broker tries.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_taken_in_order() {
    let machine = Machine::start().await;
    let mut client = machine.client("/").await;
    client.declare("work", Table::new()).await;
    client.confirm_select().await;
    client.publish("work", b"0").await;
    client.wait_for(|method| matches!(method, Method::BasicAck(_))).await;
    machine.disk.set_capacity(Some(0));
    for n in 1..=9 {
        client.publish("work", n.to_string().as_bytes()).await;
    }
    client.wait_for(|method| matches!(method, Method::ConnectionBlocked(_))).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let answers = |method: &Method| !matches!(method, Method::BasicQosOk(_));
    assert_eq!(count(&mut client, answers).await, 0, "{:?}", client.came);
    machine.disk.set_capacity(None);
    client.wait_for(|method| matches!(method, Method::ConnectionUnblocked(_))).await;
    client.wait_for(|method| matches!(method, Method::BasicAck(ack) if ack.delivery_tag == 10)).await;
    assert_eq!(machine.broker.queues()[0].ready, 10);

    let machine = machine.restart(true).await;
    assert_eq!(machine.broker.queues()[0].ready, 10, "confirmed messages are gone");
}

/// Dead letters that find the disk full arrive when there is space, and a loss of power before that brings them back
/// where they died.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_wait_for_room() {
    for loses_power in [false, true] {
        let machine = Machine::start().await;
        let mut client = machine.client("/").await;
        let to_grave =
            Table::new().with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", "grave");
        client.declare("grave", Table::new()).await;
        client.declare("work", to_grave).await;
        client.confirm_select().await;
        client.publish("work", b"letter").await;
        client.wait_for(|method| matches!(method, Method::BasicAck(_))).await;
        let queue = ShortStr::from_static("work");
        client.send(1, BasicGet { queue, ..BasicGet::default() }).await;
        client.wait_for(|method| matches!(method, Method::BasicGetOk(_))).await;
        machine.disk.set_capacity(Some(0));
        client.send(1, BasicReject { delivery_tag: 1, requeue: false }).await;
        count(&mut client, |_| true).await;
        let ready = |machine: &Machine, name: &str| {
            machine.broker.queues().iter().find(|info| info.name == name).map(|info| info.ready)
        };
        assert_eq!(ready(&machine, "grave"), Some(0));
        if loses_power {
            let machine = machine.restart(true).await;
            machine.disk.set_capacity(None);
            assert_eq!(ready(&machine, "work"), Some(1), "the dead letter is lost");
            continue;
        }
        machine.disk.set_capacity(None);
        wait_until("the dead letter did not come", || ready(&machine, "grave") != Some(0)).await;
        assert_eq!((ready(&machine, "grave"), ready(&machine, "work")), (Some(1), Some(0)));
    }
}
