//! Every setting of kiln.toml, its default and its check.
//!
//! One table ([`sections`]) names each key once, with its type, default, limits and a line of explanation; the struct tree ([`Config`]), the
//! `KILN_*` variables, the command-line flags, the shipped commented kiln.toml and docs/configuration.md all come from it.
//!
//! A value is looked up in this order: flag, environment, file, default ([`load`]). Nothing stops at the first mistake: what is wrong comes back as a
//! list ([`Problems`]) in which each entry names its place (`kiln.toml:12:3`), the key, the value, the reason and what to do about it.
//!
//! ```
//! use kiln_config::{Sources, TomlFile, load};
//!
//! let file = TomlFile { path: "kiln.toml".into(), text: "[kafka]\nlissten = \"127.0.0.1:9092\"\n".into() };
//! let problems = load(&Sources { file: Some(file), ..Sources::default() }).unwrap_err();
//! let text = problems.to_string();
//! assert!(text.contains("kiln.toml:2:1: kafka.lissten"), "{text}");
//! assert!(text.contains("did you mean `listen`?"), "{text}");
//! ```

mod chain;
mod file;
mod load;
mod nearest;
mod problem;
mod render;
mod settings;
mod validate;
mod value;

pub use chain::{Arg, ArgKind, Extract, Flow, Sink, Source, Task, ValueKind};
pub use load::{Effective, Loaded, Sources, TomlFile, load, parse};
pub use problem::{Origin, Problem, Problems};
pub use render::{commented, reference, shipped};
pub use settings::{
    AmqpConfig, ClusterConfig, Config, ConsoleConfig, DiagnosticsConfig, KafkaConfig, LogConfig, NodeConfig,
    Section, Setting, SyslogConfig, sections, setting,
};
pub use value::{Hostnames, Limit, Listen, LogFormat};

/// Variables with the `KILN_` prefix that are no keys of kiln.toml, with what they do.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("KILN_CONFIG", "path of the kiln.toml to read"),
    ("KILN_DATA", "the instance's data directory"),
    ("KILN_LOG", "filter of diagnostics, as RUST_LOG: `info,kiln_kafka=debug`"),
];
