//! What the API says, as JSON. `--json` prints these as they are, so their fields are an interface: add, do not rename.

pub(crate) mod fs;

use serde::{Deserialize, Serialize};

use crate::supervisor::{Listeners, NodeStatus};

/// Why a request was refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    /// A sentence for a person: what was wrong and what to do.
    pub error: String,
}

/// What the services hold; the leader's half of `kiln status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Services {
    /// Seconds since the leader's start.
    pub uptime_s: f64,
    /// The event log.
    pub kafka: KafkaStatus,
    /// The broker.
    pub amqp: AmqpStatus,
    /// The workload manager.
    pub jobs: JobsStatus,
    /// Counters of the flows, in the order they are declared.
    pub flows: Vec<FlowStatus>,
    /// The filesystems, each in a line.
    pub filesystems: Vec<FsStatus>,
    /// The recorder's totals.
    pub tasks: TaskTotals,
}

/// Counts of the event log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct KafkaStatus {
    /// Topics.
    pub topics: usize,
    /// Records held.
    pub records: i64,
    /// Consumer groups.
    pub groups: usize,
}

/// Counts of the broker, all virtual hosts together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AmqpStatus {
    /// Queues.
    pub queues: usize,
    /// Messages ready to be delivered.
    pub ready: u64,
    /// Messages delivered and not acknowledged.
    pub unacked: u64,
    /// Client connections.
    pub connections: usize,
}

/// Counts of the workload manager.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct JobsStatus {
    /// Ranks that are connected.
    pub nodes_up: u32,
    /// Cores they offer.
    pub cores: u32,
    /// Jobs waiting.
    pub pending: u64,
    /// Jobs running.
    pub running: u64,
    /// Jobs ended.
    pub inactive: u64,
}

/// One flow and the counts at its hops.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct FlowStatus {
    /// Its name.
    pub name: String,
    /// Where it reads.
    pub from: String,
    /// Where it writes.
    pub to: String,
    /// Events seen.
    pub seen: u64,
    /// Events its filter took.
    pub matched: u64,
    /// Events its sink has stored.
    pub delivered: u64,
    /// Events that failed and went to the dead-letter topic.
    pub dead: u64,
}

/// One filesystem, in a line; `GET /api/fs/NAME` has the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FsStatus {
    /// Its name.
    pub name: String,
    /// `ok`, or `degraded` while a target is not served.
    pub state: String,
    /// Its targets, the MDT included.
    pub targets: usize,
    /// Of these, targets that are served.
    pub serving: usize,
    /// Clients that have it mounted.
    pub clients: usize,
    /// Files, directories and so on.
    pub files: u64,
    /// Space of the OSTs that are served, in bytes.
    pub total: u64,
    /// What is used of that.
    pub used: u64,
}

impl FsStatus {
    pub(crate) fn of(fs: &fs::Filesystem) -> FsStatus {
        let spaces = |kind: &str| {
            let of_kind = |target: &&fs::Target| target.kind == kind;
            fs.targets.iter().filter(of_kind).filter_map(|target| target.space).collect::<Vec<_>>()
        };
        let osts = spaces("ost");
        FsStatus {
            name: fs.name.clone(),
            state: fs.state.clone(),
            targets: fs.targets.len(),
            serving: fs.targets.iter().filter(|target| target.state == fs::Target::SERVING).count(),
            clients: fs.clients.len(),
            files: spaces("mdt").iter().map(|space| space.inodes_used).sum(),
            total: osts.iter().map(|space| space.total).sum(),
            used: osts.iter().map(|space| space.used).sum(),
        }
    }
}

/// The recorder's totals.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskTotals {
    /// Tasks seen in the log.
    pub issued: u64,
    /// Tasks put on a queue.
    pub queued: u64,
    /// Tasks that an agent has started.
    pub started: u64,
    /// Tasks that have ended, whatever their status.
    pub completed: u64,
    /// Of these, tasks with a status other than 0.
    pub failed: u64,
    /// Tasks that ran to completion more than once.
    pub duplicated: u64,
    /// Median of issue to completion, in milliseconds.
    pub latency_ms_p50: f64,
    /// 99th percentile of the same.
    pub latency_ms_p99: f64,
}

/// `kiln status --json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Whether every node serves.
    pub ready: bool,
    /// Kiln's version.
    pub version: String,
    /// The data directory.
    pub data: String,
    /// The process that `kiln up` is.
    pub supervisor_pid: i32,
    /// Rank 0's process, while there is one.
    pub leader_pid: Option<i32>,
    /// What to put into `FLUX_URI`.
    pub flux_uri: String,
    /// Where clients connect.
    pub listeners: Listeners,
    /// One entry per rank.
    pub nodes: Vec<NodeStatus>,
    /// What the services hold; absent while the leader is being started again.
    pub services: Option<Services>,
}

/// One topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// One partition of a topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the field's name is the JSON key that users know")]
pub(crate) struct Partition {
    /// Its number.
    pub partition: i32,
    /// The oldest offset held.
    pub start: i64,
    /// The high watermark: the next offset that a consumer will see.
    pub end: i64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// `POST /api/topics`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Settings such as `retention.ms`.
    #[serde(default)]
    pub configs: Vec<(String, String)>,
}

/// One record. Bytes that are no UTF-8 are shown with replacement characters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in milliseconds since the epoch.
    pub time_ms: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
}

/// A page of records.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Records {
    /// In order of offset.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: i64,
}

/// `POST /api/topics/NAME/records`: one record each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecords {
    /// Their values.
    pub values: Vec<String>,
}

/// One consumer group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its name.
    pub name: String,
    /// Kafka's word for it, such as `Stable`.
    pub state: String,
    /// How many members.
    pub members: usize,
    /// Committed offsets.
    pub offsets: Vec<GroupOffset>,
}

/// One committed offset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The committed offset.
    pub committed: i64,
    /// How far the partition has gone on since.
    pub lag: i64,
}

/// `POST /api/groups/NAME/offsets`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that the group will read.
    pub offset: i64,
}

/// A listing whose columns its kind decides: `kiln amqp list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// The columns.
    pub columns: Vec<String>,
    /// The rows, in a stable order.
    pub rows: Vec<Vec<String>>,
}

/// One row of the recorder. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the field's name is the JSON key that users know")]
pub(crate) struct Task {
    /// The key that the line on the wire gave.
    pub key: String,
    /// The task's name in the catalogue.
    pub task: String,
    /// Its arguments.
    pub args: String,
    /// When the sender wrote the line.
    pub issued: Option<i64>,
    /// When it was in the topic.
    pub logged: Option<i64>,
    /// When it was on the queue.
    pub queued: Option<i64>,
    /// When its job started.
    pub started: Option<i64>,
    /// When its job ended.
    pub completed: Option<i64>,
    /// The node that ran it.
    pub agent: Option<String>,
    /// The job's id.
    pub job: Option<String>,
    /// The job's exit status.
    pub status: Option<i32>,
    /// From issued to completed.
    pub latency_ms: Option<i64>,
}

/// `GET /api/tasks`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tasks {
    /// Newest last.
    pub tasks: Vec<Task>,
    /// Counts over all rows, not only those listed.
    pub totals: TaskTotals,
}

/// `PUT /api/users/NAME`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// The password, sent over the owner's socket only.
    pub password: String,
    /// Tags; `None` leaves those of an existing user.
    pub tags: Option<Vec<String>>,
}

/// `PUT /api/permissions/USER`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPermission {
    /// What may be declared and deleted.
    pub configure: String,
    /// What may be published to or bound.
    pub write: String,
    /// What may be consumed.
    pub read: String,
}
