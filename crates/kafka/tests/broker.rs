//! The broker behind a socket, and as the rest of Kiln uses it, on a simulated disk.

#[expect(clippy::unwrap_used, reason = "a failure of the helpers fails the test")]
mod support;

use kiln_kafka::wire::{Api, ErrorCode};
use kiln_kafka::{AppendError, Commit, NewTopic, Settings, TopicConfig};
use kiln_log::batch::{Record, batches, records};
use kiln_types::Offset;
use std::time::Duration;
use support::{Client, Machine, batch, batch_of, fetch_body, produce_body};

#[tokio::test]
async fn every_announced_version_of_every_request_is_answered() {
    let machine = Machine::start(Settings::default()).await;
    machine.broker.create_topic(NewTopic { name: "ab".into(), ..NewTopic::default() }).await.unwrap();
    for api in Api::all() {
        let (first, last) = api.versions();
        for version in first..=last {
            let mut client = Client::connect(machine.address).await;
            let body = support::simplest_body(api, version);
            let answer = client.ask(api.key(), version, api.is_flexible(version), &body).await;
            let answer = answer.unwrap_or_else(|| panic!("{api:?} version {version} closes the connection"));
            let left = support::decode_response(api, version, &answer);
            assert_eq!(left, Some(0), "{api:?} version {version}");
        }
    }
}

#[tokio::test]
async fn what_is_produced_is_fetched_as_it_was_sent() {
    let machine = Machine::start(Settings::default()).await;
    machine.broker.create_topic(NewTopic { name: "t".into(), ..NewTopic::default() }).await.unwrap();
    let mut client = Client::connect(machine.address).await;
    let sent = batch(&["a", "b", "c"]);
    let answer = client.ask(0, 7, false, &produce_body(-1, "t", &sent)).await.unwrap();
    assert_eq!(support::produce_outcome(&answer, "t"), (0, 0));
    let answer = client.ask(0, 7, false, &produce_body(1, "t", &sent)).await.unwrap();
    assert_eq!(support::produce_outcome(&answer, "t"), (0, 3));
    let (error, high_watermark, bytes) = support::fetch_outcome(
        &client.ask(1, 11, false, &fetch_body("t", 0, 1000, sent.len() as i32 + 1)).await.unwrap(),
        "t",
    );
    assert_eq!(error, 0);
    assert!(high_watermark >= 6);
    let stored: Vec<_> = batches(&bytes).collect();
    let bases: Vec<_> = stored.iter().map(|(header, _)| header.base.0).collect();
    assert_eq!(bases, [0, 3]);
    // Base offset and leader epoch are the broker's; from the magic on it is what was sent.
    assert!(stored.iter().all(|(_, batch)| batch[16..] == sent[16..]));
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_ends_when_they_come() {
    let machine = Machine::start(Settings::default()).await;
    machine.broker.create_topic(NewTopic { name: "t".into(), ..NewTopic::default() }).await.unwrap();
    let mut client = Client::connect(machine.address).await;
    client.send(1, 11, false, &fetch_body("t", 0, 60_000, 1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    machine.broker.append_records("t", 0, &[Record { value: Some(b"late"), ..Record::default() }]).unwrap();
    let (error, _, bytes) = support::fetch_outcome(&client.receive().await.unwrap(), "t");
    assert_eq!(error, 0);
    let values: Vec<_> = records(&bytes).map(|record| record.unwrap().value.unwrap().to_vec()).collect();
    assert_eq!(values, [b"late"]);
}

#[tokio::test]
async fn batches_that_break_the_rules_get_their_error() {
    let settings = Settings::default();
    let machine = Machine::start(settings).await;
    let config = TopicConfig { batch_bytes_max: Some(300), ..TopicConfig::default() };
    machine.broker.create_topic(NewTopic { name: "t".into(), config, ..NewTopic::default() }).await.unwrap();
    let good = batch(&["a"]);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut old = good.clone();
    old[16] = 1;
    let mut miscounted = good.clone();
    miscounted[60] = 7;
    let twice = [good.clone(), good.clone()].concat();
    let large = batch(&[&"x".repeat(400)]);
    let mut transactional = good.clone();
    transactional[22] |= 0x10;
    let mut client = Client::connect(machine.address).await;
    for (what, bytes, error) in [
        ("checksum", &flipped, ErrorCode::CorruptMessage),
        ("old format", &old, ErrorCode::UnsupportedForMessageFormat),
        ("count", &miscounted, ErrorCode::InvalidRecord),
        ("two batches", &twice, ErrorCode::InvalidRecord),
        ("too large", &large, ErrorCode::MessageTooLarge),
        ("transactional", &transactional, ErrorCode::InvalidRecord),
        ("cut", &good[..40].to_vec(), ErrorCode::CorruptMessage),
        ("empty", &Vec::new(), ErrorCode::CorruptMessage),
    ] {
        let answer = client.ask(0, 7, false, &produce_body(-1, "t", bytes)).await.unwrap();
        assert_eq!(support::produce_outcome(&answer, "t"), (error.code(), -1), "{what}");
    }
    let answer = client.ask(0, 7, false, &produce_body(-1, "none", &good)).await.unwrap();
    assert_eq!(support::produce_outcome(&answer, "none").0, ErrorCode::UnknownTopicOrPartition.code());
    let answer = client.ask(0, 7, false, &produce_body(2, "t", &good)).await.unwrap();
    assert_eq!(support::produce_outcome(&answer, "t").0, ErrorCode::InvalidRequiredAcks.code());
    assert_eq!(machine.broker.list_topics()[0].partitions[0].end, Offset(0), "nothing was stored");
}

#[tokio::test]
async fn a_repeated_batch_keeps_its_offset_also_after_a_restart() {
    let machine = Machine::start(Settings::default()).await;
    machine.broker.create_topic(NewTopic { name: "t".into(), ..NewTopic::default() }).await.unwrap();
    let mut client = Client::connect(machine.address).await;
    for (sequence, base) in [(0, 0), (2, 2), (0, 0)] {
        let sent = batch_of(&["a", "b"], Some((7, 0, sequence)));
        let answer = client.ask(0, 7, false, &produce_body(-1, "t", &sent)).await.unwrap();
        assert_eq!(support::produce_outcome(&answer, "t"), (0, base), "sequence {sequence}");
    }
    let machine = machine.crash_and_restart(Settings::default()).await;
    let mut client = Client::connect(machine.address).await;
    let repeated = batch_of(&["a", "b"], Some((7, 0, 2)));
    let mut outcome = (ErrorCode::NotLeaderOrFollower.code(), -1);
    while outcome.0 == ErrorCode::NotLeaderOrFollower.code() {
        let answer = client.ask(0, 7, false, &produce_body(-1, "t", &repeated)).await.unwrap();
        outcome = support::produce_outcome(&answer, "t");
    }
    assert_eq!(outcome, (0, 2));
    let gap = batch_of(&["z"], Some((7, 0, 9)));
    let answer = client.ask(0, 7, false, &produce_body(-1, "t", &gap)).await.unwrap();
    assert_eq!(support::produce_outcome(&answer, "t").0, ErrorCode::OutOfOrderSequenceNumber.code());
}

#[tokio::test]
async fn topics_offsets_and_producer_ids_outlive_a_crash() {
    let machine = Machine::start(Settings::default()).await;
    let broker = &machine.broker;
    let mut config = TopicConfig::default();
    config.set("retention.ms", Some("1000")).unwrap();
    let made = broker
        .create_topic(NewTopic { name: "t".into(), partitions: Some(2), config: config.clone() })
        .await
        .unwrap();
    let placed = broker.append_records("t", 1, &[Record { value: Some(b"v"), ..Record::default() }]).unwrap();
    broker.durable("t", 1, placed.last).await.unwrap();
    let commit =
        Commit { topic: "t".into(), partition: 1, offset: 1, leader_epoch: -1, metadata: String::new() };
    broker.commit("g", vec![commit]).await.unwrap();

    let machine = machine.crash_and_restart(Settings::default()).await;
    let broker = &machine.broker;
    let topics = broker.list_topics();
    assert_eq!((topics[0].id, topics[0].partitions.len(), &topics[0].config), (made.id, 2, &config));
    assert_eq!(topics[0].partitions[1].end, Offset(1));
    assert_eq!(broker.committed("g", "t", 1).unwrap(), Some(Offset(1)));
    assert_eq!(broker.committed("g", "t", 0).unwrap(), None);
    let groups = broker.list_groups().unwrap();
    assert_eq!((groups[0].name.as_str(), groups[0].lags[0].records()), ("g", 0));

    broker.delete_topic("t").await.unwrap();
    assert_eq!(broker.committed("g", "t", 1).unwrap(), None, "offsets go with their topic");
    let machine = machine.crash_and_restart(Settings::default()).await;
    assert!(machine.broker.list_topics().is_empty());
    let again =
        machine.broker.create_topic(NewTopic { name: "t".into(), ..NewTopic::default() }).await.unwrap();
    assert_ne!(again.id, made.id);
    assert_eq!(again.partitions[0].end, Offset(0), "the old records are gone");
}

#[tokio::test]
async fn a_mounted_log_is_read_and_not_written() {
    let machine = Machine::start(Settings::default()).await;
    let log = machine.volume.open("jobs".as_ref(), kiln_log::Settings::default()).unwrap();
    let mut bytes = batch(&["event"]);
    let placed = log.append(&mut bytes, 0).unwrap();
    log.durable(placed.last).await.unwrap();
    machine.broker.mount("job-events", log);
    let read = machine.broker.read("job-events", 0, Offset(0), 1 << 20).await.unwrap();
    assert_eq!(read, bytes);
    let refused = machine.broker.append("job-events", 0, &mut batch(&["x"]));
    assert!(matches!(refused, Err(AppendError::Produce(kiln_kafka::ProduceError::ReadOnly))), "{refused:?}");
    assert!(machine.broker.delete_topic("job-events").await.is_err());
}

#[tokio::test]
async fn draining_answers_what_was_asked_and_then_closes() {
    let machine = Machine::start(Settings::default()).await;
    machine.broker.create_topic(NewTopic { name: "t".into(), ..NewTopic::default() }).await.unwrap();
    let mut client = Client::connect(machine.address).await;
    client.send(1, 11, false, &fetch_body("t", 0, 60_000, 1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(machine.handle.drain(Duration::from_secs(20)).await, 0);
    let (error, _, bytes) = support::fetch_outcome(&client.receive().await.unwrap(), "t");
    assert_eq!((error, bytes.len()), (0, 0));
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn without_a_login_only_the_login_is_served() {
    let settings = Settings { login_required: true, ..Settings::default() };
    let machine = Machine::start(settings).await;
    let mut client = Client::connect(machine.address).await;
    let versions = support::simplest_body(Api::ApiVersions, 3);
    assert!(client.ask(Api::ApiVersions.key(), 3, true, &versions).await.is_some());
    let metadata = support::simplest_body(Api::Metadata, 4);
    assert_eq!(client.ask(Api::Metadata.key(), 4, false, &metadata).await, None);
}

#[tokio::test]
async fn a_large_request_of_the_wrong_kind_ends_the_connection_and_a_slow_one_too() {
    let settings = Settings { stall_max: Duration::from_millis(50), ..Settings::default() };
    let machine = Machine::start(settings).await;
    let mut client = Client::connect(machine.address).await;
    assert_eq!(client.ask(Api::Heartbeat.key(), 0, false, &vec![0; 5 << 20]).await, None);
    let mut client = Client::connect(machine.address).await;
    client.send_raw(&[0, 0, 1, 0, 0, 18]).await;
    assert_eq!(client.receive().await, None, "the rest never comes");
}

#[tokio::test]
async fn settings_change_while_the_topic_is_in_use_and_outlive_a_crash() {
    let settings = Settings { retention_interval: Duration::from_millis(10), ..Settings::default() };
    let machine = Machine::start(settings.clone()).await;
    let broker = &machine.broker;
    let mut config = TopicConfig::default();
    config.set("retention.ms", Some("-1")).unwrap();
    broker.create_topic(NewTopic { name: "t".into(), config, ..NewTopic::default() }).await.unwrap();
    // A batch of the year 2023, which the default retention would not keep.
    let large = batch(&[&"x".repeat(400)]);
    broker.append("t", 0, &mut large.clone()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.list_topics()[0].partitions[0].start, Offset(0));

    broker.alter_topic("t", |config| config.set("max.message.bytes", Some("300"))).await.unwrap();
    assert!(broker.append("t", 0, &mut large.clone()).is_err(), "too large from now on");
    let wrong = broker.alter_topic("t", |config| config.set("max.message.bytes", Some("0"))).await;
    assert!(matches!(wrong, Err(kiln_kafka::AdminError::Bad(_))), "{wrong:?}");
    broker.alter_topic("t", |config| config.set("max.message.bytes", Some("2000000"))).await.unwrap();
    let huge = batch(&[&"x".repeat(1_500_000)]);
    let placed = broker.append("t", 0, &mut huge.clone()).unwrap();
    broker.durable("t", 0, placed.last).await.unwrap();

    broker.alter_topic("t", |config| config.set("retention.ms", None)).await.unwrap();
    let emptied = async {
        while broker.list_topics()[0].partitions[0].start < Offset(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), emptied).await.expect("the old records go");

    let machine = machine.crash_and_restart(settings).await;
    let config = &machine.broker.list_topics()[0].config;
    assert_eq!((config.retention_ms, config.batch_bytes_max), (None, Some(2_000_000)));
    assert!(machine.broker.append("t", 0, &mut huge.clone()).is_ok());
}

#[tokio::test]
async fn a_partition_above_its_new_size_loses_its_oldest_segments() {
    let settings = Settings { retention_interval: Duration::from_millis(10), ..Settings::default() };
    let machine = Machine::start(settings).await;
    let broker = &machine.broker;
    let mut config = TopicConfig::default();
    config.set("retention.ms", Some("-1")).unwrap();
    config.set("segment.bytes", Some("4096")).unwrap();
    broker.create_topic(NewTopic { name: "t".into(), config, ..NewTopic::default() }).await.unwrap();
    for _ in 0..8 {
        let placed = broker.append("t", 0, &mut batch(&[&"x".repeat(3_000)])).unwrap();
        broker.durable("t", 0, placed.last).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.list_topics()[0].partitions[0].start, Offset(0), "nothing goes without a limit");
    broker.alter_topic("t", |config| config.set("retention.bytes", Some("10000"))).await.unwrap();
    let shrunk = async {
        while broker.list_topics()[0].partitions[0].start < Offset(4) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), shrunk).await.expect("the oldest segments go");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let left = broker.list_topics()[0].partitions[0];
    assert_eq!((left.start, left.end), (Offset(4), Offset(8)), "and no more than is too much");
}

#[tokio::test]
async fn a_topic_made_by_metadata_takes_an_idempotent_producer_at_once() {
    let machine = Machine::start(Settings::default()).await;
    for round in 0..50 {
        let mut client = Client::connect(machine.address).await;
        // `Metadata` 0 of one topic, which may create it.
        let name = format!("fresh-{round}");
        let mut metadata = 1_i32.to_be_bytes().to_vec();
        metadata.extend((name.len() as i16).to_be_bytes());
        metadata.extend(name.as_bytes());
        client.send(3, 0, false, &metadata).await;
        let answer = client.receive().await.unwrap();
        // Behind the topic's name: error 0, at the end one partition with its leader.
        let at = answer.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        assert_eq!(answer[at - 4..at - 2], [0, 0], "the error is that of the topic");
        for (sequence, base) in [(0, 0), (1, 1)] {
            let sent = batch_of(&["a"], Some((round, 0, sequence)));
            client.send(0, 7, false, &produce_body(-1, &name, &sent)).await;
            let answer = client.receive().await.unwrap();
            assert_eq!(support::produce_outcome(&answer, &name), (0, base), "round {round}");
        }
    }
}

#[tokio::test]
async fn the_first_answer_after_a_restart_knows_every_topic() {
    let mut machine = Machine::start(Settings::default()).await;
    for n in 0..30 {
        let new = NewTopic { name: format!("t{n}"), partitions: Some(2), ..NewTopic::default() };
        machine.broker.create_topic(new).await.unwrap();
    }
    for _ in 0..3 {
        machine = machine.crash_and_restart(Settings::default()).await;
        let mut client = Client::connect(machine.address).await;
        for n in 0..30 {
            // A fetch at the end finds its partition, or says that there is none.
            let body = fetch_body(&format!("t{n}"), 0, 0, 1);
            let answer = client.ask(1, 11, false, &body).await.unwrap();
            assert_eq!(support::fetch_outcome(&answer, &format!("t{n}")).0, 0, "t{n}");
        }
    }
}

/// Polls a request so often, with time in between for what it waits for, and then drops it, as a connection that
/// is closed does.
async fn ask_and_go_away(request: impl Future, polls: usize) {
    let mut request = std::pin::pin!(request);
    for _ in 0..polls {
        if futures_util::poll!(request.as_mut()).is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// librdkafka closes its first connection as soon as it knows the brokers, with a `Metadata` under way that creates
/// a topic. What was begun is finished: else the store has a topic that the registry has not, and every later
/// `Metadata` of it is answered with `LEADER_NOT_AVAILABLE`.
#[tokio::test]
async fn a_client_that_goes_away_while_a_topic_changes_leaves_nothing_half_done() {
    let machine = Machine::start(Settings::default()).await;
    let broker = &machine.broker;
    for polls in 1..8 {
        let name = format!("t{polls}");
        let new = NewTopic { name: name.clone(), ..NewTopic::default() };
        ask_and_go_away(broker.create_topic(new.clone()), polls).await;
        let again = broker.create_topic(new.clone()).await;
        assert!(matches!(again, Ok(_) | Err(kiln_kafka::AdminError::TopicExists(_))), "{again:?}");
        assert_eq!(broker.partition_count(&name), Some(1), "created after {polls} polls");

        ask_and_go_away(broker.alter_topic(&name, |config| config.set("retention.ms", Some("-1"))), polls)
            .await;
        ask_and_go_away(broker.set_partitions(&name, 3), polls).await;
        let more = broker.set_partitions(&name, 4).await;
        assert!(more.is_ok(), "{more:?}");
        let placed = broker.append(&name, 3, &mut batch(&["a"])).unwrap();
        broker.durable(&name, 3, placed.last).await.unwrap();

        ask_and_go_away(broker.delete_topic(&name), polls).await;
        let again = broker.delete_topic(&name).await;
        assert!(matches!(again, Ok(()) | Err(kiln_kafka::AdminError::NoTopic(_))), "{again:?}");
        assert_eq!(broker.partition_count(&name), None, "deleted after {polls} polls");
        let fresh = broker.create_topic(new).await.unwrap();
        assert_eq!(fresh.partitions[0].end, Offset(0));
    }
}
