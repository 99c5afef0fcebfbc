//! The table of settings: one entry makes the struct field, its default, its limits, its variable, its flag and its line in the documentation.

#![expect(
    clippy::doc_markdown,
    reason = "the same text is a comment in kiln.toml, where backticks are noise"
)]

use std::time::Duration;

use kiln_types::ByteSize;

use crate::chain::{Flow, Task};
use crate::value::{Hostnames, Limit, Listen, LogFormat, Raw, Value, bytes, check_range};

/// One `[section]` of kiln.toml.
#[derive(Debug)]
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys, in the order of the shipped file.
    pub settings: &'static [Setting],
}

/// One key of kiln.toml.
#[derive(Debug)]
pub struct Setting {
    /// The section it stands in.
    pub section: &'static str,
    /// Its name within the section.
    pub name: &'static str,
    /// What it does; one or more lines.
    pub doc: &'static str,
    /// What a value looks like, for messages: `a size such as 64MiB`.
    pub kind: &'static str,
    pub(crate) get: fn(&Config) -> String,
    pub(crate) set: fn(&mut Config, &Raw<'_>) -> Result<(), String>,
    pub(crate) check: fn(&Config) -> Result<(), String>,
}

impl Setting {
    /// `kafka.listen`
    pub fn key(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `KILN_KAFKA_LISTEN`
    pub fn env(&self) -> String {
        format!("KILN_{}_{}", self.section, self.name).to_uppercase()
    }

    /// `kafka-listen`, to be written `--kafka-listen VALUE`
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.name).replace('_', "-")
    }

    /// The value in `config`, written as in kiln.toml.
    pub fn show(&self, config: &Config) -> String {
        (self.get)(config)
    }
}

/// Each section with its settings.
pub fn sections() -> &'static [Section] {
    SECTIONS
}

/// The setting of `key`, as in `kafka.listen`.
pub fn setting(key: &str) -> Option<&'static Setting> {
    let (section, name) = key.split_once('.')?;
    SECTIONS.iter().find(|s| s.name == section)?.settings.iter().find(|s| s.name == name)
}

/// A setting's limits, where it has any.
macro_rules! check {
    ($field:expr) => {{
        let _ = $field;
        Ok(())
    }};
    ($field:expr, $min:expr, $max:expr) => {
        check_range(&$field, &$min, &$max)
    };
}

macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident: $ty:ty = $default:expr $(, from $min:expr => $max:expr)?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $name: $ty, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $name: $default, )+ }
                }
            }
        )+

        /// Every setting, with its value in force.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
            /// `[[flow]]`: what is taken from where, and put where.
            pub flow: Vec<Flow>,
            /// `[[task]]`: what may be run by name.
            pub task: Vec<Task>,
        }

        static SECTIONS: &[Section] = &[
            $( Section {
                name: stringify!($section),
                doc: concat!($($section_doc, "\n"),+),
                settings: &[
                    $( Setting {
                        section: stringify!($section),
                        name: stringify!($name),
                        doc: concat!($($doc, "\n"),+),
                        kind: <$ty as Value>::KIND,
                        get: |config| config.$section.$name.show(),
                        set: |config, raw| <$ty as Value>::read(raw).map(|value| config.$section.$name = value),
                        check: |config| check!(config.$section.$name $(, $min, $max)?),
                    }, )+
                ],
            }, )+
        ];
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

sections! {
    /// The cluster as a whole.
    cluster: ClusterConfig {
        /// Its name, as clients see it.
        name: String = "kiln".into();
        /// How many virtual nodes `kiln up` starts on this machine; `--nodes N` says the same.
        nodes: u32 = 1, from 1 => 256;
        /// Nodes are called this with a number from 1: silicon1, silicon2, ...
        host_prefix: String = "silicon".into();
        /// Nodes that run no jobs, as a hostlist (RFC 29): "silicon1" or "silicon[1-2]".
        exclude: String = String::new();
        /// Whether each node gets a host name of its own (a UTS namespace): "auto" where allowed, "require" or fail, "off".
        hostnames: Hostnames = Hostnames::Auto;
    }

    /// Each node.
    node: NodeConfig {
        /// Cores that a node offers to jobs; 0 counts this machine's.
        cores: u32 = 0, from 0 => 4096;
    }

    /// The logs under topics, queues and job events.
    log: LogConfig {
        /// A log goes on in a new file when the current one has reached this size.
        segment_size: ByteSize = bytes(64 * MIB), from bytes(64 * KIB) => bytes(2 * GIB);
        /// The pool of the leader's node that the logs stand on, with the state of the instance; "" for the data directory. They move at the start that names another pool, and with "." back to the data directory.
        pool: String = String::new();
    }

    /// The event log, for Kafka's clients.
    kafka: KafkaConfig {
        /// Where it listens: "ADDRESS:PORT", or "off"; port 0 picks a free one.
        listen: Listen = Listen::loopback(9092);
        /// Whether a topic that a client asks for is created on the spot.
        auto_create_topics: bool = true;
        /// Partitions of a topic that does not say how many.
        default_partitions: u32 = 1, from 1 => 1000;
        /// The largest record batch, as it is sent (Kafka's message.max.bytes).
        batch_size_max: ByteSize = bytes(MIB + 12), from bytes(KIB) => bytes(100 * MIB);
        /// The largest request (Kafka's socket.request.max.bytes).
        request_size_max: ByteSize = bytes(100 * MIB), from bytes(64 * KIB) => bytes(GIB);
        /// Records older than this are deleted: a duration, or "unlimited".
        retention_age: Limit<Duration> = Limit::To(Duration::from_hours(7 * 24));
        /// A partition above this size loses its oldest records: a size, or "unlimited".
        retention_size: Limit<ByteSize> = Limit::Unlimited;
        /// Client connections at one time; further ones wait.
        connections_max: u32 = 1024, from 1 => 100_000;
    }

    /// The message broker, for RabbitMQ's clients (AMQP 0-9-1).
    amqp: AmqpConfig {
        /// Where it listens: "ADDRESS:PORT", or "off"; port 0 picks a free one.
        listen: Listen = Listen::loopback(5672);
        /// Heartbeat that the broker proposes; 0s proposes none.
        heartbeat: Duration = Duration::from_mins(1), from Duration::ZERO => Duration::from_hours(1);
        /// Channels on one connection.
        channels_max: u32 = 2047, from 1 => 65_535;
        /// The largest frame, header and end byte included.
        frame_size_max: ByteSize = bytes(128 * KIB), from bytes(4 * KIB) => bytes(16 * MIB);
        /// The largest message.
        message_size_max: ByteSize = bytes(128 * MIB), from bytes(KIB) => bytes(512 * MIB);
        /// Client connections at one time; further ones wait.
        connections_max: u32 = 1024, from 1 => 100_000;
    }

    /// The syslog receiver: UDP, TCP and RELP on one port.
    syslog: SyslogConfig {
        /// Where it listens: "ADDRESS:PORT", or "off"; port 0 picks a free one.
        listen: Listen = Listen::loopback(5514);
        /// Longer messages are cut to this length, and counted.
        message_size_max: ByteSize = bytes(64 * KIB), from bytes(480) => bytes(MIB);
    }

    /// Parallel filesystems. The first three are the layout of files in filesystems that are made from now on; `lfs setstripe` changes it for files and directories.
    fs: FsConfig {
        /// The first bytes of a file are kept on the MDT, beside its attributes, so that small files are there whole; a multiple of 64KiB, 0B for none.
        inline_size: ByteSize = bytes(64 * KIB), from bytes(0) => bytes(MIB);
        /// Bytes of a stripe; a multiple of 64KiB.
        stripe_size: ByteSize = bytes(MIB), from bytes(64 * KIB) => bytes(GIB);
        /// OSTs that a file is spread over; 0 is all of them.
        stripe_count: u32 = 0, from 0 => 2000;
        /// A client that is silent for so long, or does not give back what it is asked for, is evicted.
        session_timeout: Duration = Duration::from_secs(30), from Duration::from_secs(2) => Duration::from_mins(10);
        /// The most that one mount holds back of what programs wrote, before they wait.
        client_dirty_size: ByteSize = bytes(256 * MIB), from bytes(8 * MIB) => bytes(16 * GIB);
        /// What changes in a filesystem is written to the topic kiln.fs.NAME.changelog of the event log.
        changelog: bool = true;
        /// Client connections at one time on each node; further ones wait.
        connections_max: u32 = 4096, from 16 => 100_000;
    }

    /// Pools: checksummed, redundant storage under targets.
    pool: PoolConfig {
        /// What one pool may take in memory: half for what is written and not on the disks yet, the rest for what was read.
        memory: ByteSize = bytes(512 * MIB), from bytes(64 * MIB) => bytes(256 * GIB);
    }

    /// The HTTP listener for health, metrics and the console.
    console: ConsoleConfig {
        /// Where it listens: "ADDRESS:PORT", or "off"; port 0 picks a free one.
        listen: Listen = Listen::loopback(8080);
    }

    /// What Kiln says about itself.
    diagnostics: DiagnosticsConfig {
        /// What is written: a level (error, warn, info, debug, trace), or a filter such as "info,kiln_kafka=debug". KILN_LOG goes before it.
        level: String = "info".into();
        /// "human" for a terminal, "json" for a machine.
        format: LogFormat = LogFormat::Human;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_variable_and_flag_is_its_own() {
        let all: Vec<_> = sections().iter().flat_map(|s| s.settings).collect();
        for names in [
            all.iter().map(|s| s.key()).collect::<BTreeSet<_>>(),
            all.iter().map(|s| s.env()).collect(),
            all.iter().map(|s| s.flag()).collect(),
        ] {
            assert_eq!(names.len(), all.len());
        }
    }

    #[test]
    fn names_follow_one_rule() {
        let listen = setting("kafka.listen").expect("a key");
        assert_eq!(listen.env(), "KILN_KAFKA_LISTEN");
        assert_eq!(setting("cluster.host_prefix").expect("a key").flag(), "cluster-host-prefix");
        assert_eq!(listen.show(&Config::default()), "\"127.0.0.1:9092\"");
        assert!(setting("kafka.lissten").is_none());
    }

    #[test]
    fn defaults_are_within_their_limits() {
        for setting in sections().iter().flat_map(|s| s.settings) {
            assert_eq!((setting.check)(&Config::default()), Ok(()), "{}", setting.key());
        }
    }
}
