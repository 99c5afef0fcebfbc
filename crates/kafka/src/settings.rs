//! Settings of the broker, with Kafka's names where Kafka has them.

use crate::core::topic::TopicDefaults;
use std::path::PathBuf;
use std::time::Duration;

/// How the broker behaves. All sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the partitions' directories lie, relative to the volume's disk.
    pub dir: PathBuf,
    /// Id of this broker, as clients see it.
    pub node_id: i32,
    /// Name of the cluster, as clients see it.
    pub cluster_id: String,
    /// Host and port that clients are told to connect to; if none, the address they connected to.
    pub advertised: Option<(String, u16)>,
    /// Whether a topic that a client asks for is created (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say how many (`num.partitions`).
    pub default_partitions: u32,
    /// Partitions of all topics; each keeps files open.
    pub partitions_max: u32,
    /// What applies to topics that do not say otherwise.
    pub topics: TopicDefaults,
    /// The largest request (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// All large requests that are being received or worked on.
    pub requests_bytes_max: usize,
    /// The largest answer to one fetch (`fetch.max.bytes`).
    pub fetch_bytes_max: usize,
    /// All answers to fetches that are being sent.
    pub fetches_bytes_max: usize,
    /// Requests of one connection that wait for their answer; reading stops beyond that.
    pub requests_in_flight_max: usize,
    /// Connections at one time; further ones wait (`max.connections`).
    pub connections_max: usize,
    /// A peer that neither takes nor completes a message for that long is disconnected.
    pub stall_max: Duration,
    /// A connection without requests is closed after that long (`connections.max.idle.ms`).
    pub idle_max: Duration,
    /// Bounds of session timeouts (`group.min.session.timeout.ms`, `group.max.session.timeout.ms`).
    pub group_session: (Duration, Duration),
    /// How long the first rebalance of a group waits for more members (`group.initial.rebalance.delay.ms`).
    pub group_initial_delay: Duration,
    /// Members of one group (`group.max.size`).
    pub group_members_max: usize,
    /// Groups with members.
    pub groups_max: usize,
    /// How often old records are looked for (`log.retention.check.interval.ms`).
    pub retention_interval: Duration,
    /// A producer unheard of for that long is forgotten (`producer.id.expiration.ms`).
    pub producer_expiry: Duration,
    /// Whether clients must log in (SASL PLAIN) before anything else.
    pub login_required: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("kafka"),
            node_id: 1,
            cluster_id: "kiln".into(),
            advertised: None,
            auto_create_topics: true,
            default_partitions: 1,
            partitions_max: 4_000,
            topics: TopicDefaults::default(),
            request_bytes_max: 100 << 20,
            requests_bytes_max: 512 << 20,
            fetch_bytes_max: 55 << 20,
            fetches_bytes_max: 512 << 20,
            requests_in_flight_max: 128,
            connections_max: 1_024,
            stall_max: Duration::from_secs(30),
            idle_max: Duration::from_mins(10),
            group_session: (Duration::from_secs(1), Duration::from_mins(30)),
            group_initial_delay: Duration::from_millis(100),
            group_members_max: 1_000,
            groups_max: 10_000,
            retention_interval: Duration::from_secs(30),
            producer_expiry: Duration::from_hours(24),
            login_required: false,
        }
    }
}
