//! The command line of `kiln`, as plain arguments. Nothing here acts.

mod fs;
mod pool;

pub(crate) use fs::{Create, Fs, Mount};
pub(crate) use pool::Pool;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An HPC cluster in one binary: jobs, filesystems, queues, topics and the flows between them.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Start with `kiln up`, or see everything at work with `kiln demo`.\nThe same file answers to `flux` and `lfs`: `kiln flux ...`, or a link by that name."
)]
pub(crate) struct Cli {
    /// The instance's data directory [default: the instance that runs here, else /var/lib/kiln or ~/.local/share/kiln]
    #[arg(long, global = true, value_name = "DIR", env = "KILN_DATA")]
    pub data: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start Kiln on this machine, with virtual nodes if asked
    Up(Up),
    /// Stop the instance, and wait until it has stopped
    Down {
        /// How long the services may take to finish what they hold
        #[arg(long, value_name = "SECONDS", default_value_t = 20)]
        timeout: u64,
    },
    /// Show nodes, listeners and what each service holds
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run the whole chain on four virtual nodes: syslog, topic, queue, jobs, recorder
    Demo(Demo),
    /// Topics of the event log
    #[command(subcommand)]
    Topic(Topic),
    /// Consumer groups and their lag
    #[command(subcommand)]
    Group(Group),
    /// Queues, exchanges, users and virtual hosts of the broker
    #[command(subcommand)]
    Amqp(Amqp),
    /// Flows: what is declared, and what a rule would do
    #[command(subcommand)]
    Flow(Flow),
    /// Filesystems: make, watch and mount them
    #[command(subcommand)]
    Fs(Fs),
    /// Pools: disks with checksums and redundancy, on which the targets of filesystems stand
    #[command(subcommand)]
    Pool(Pool),
    /// The recorder's table: one row for each task
    Tasks(Tasks),
    /// The settings: check a file, or show what is in force
    #[command(subcommand)]
    Config(Config),
    /// Flux's commands: `kiln flux run -n4 hostname`
    #[command(disable_help_flag = true)]
    Flux {
        /// What `flux` would be given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Lustre's user commands on a mounted filesystem: `kiln lfs df -h`
    #[command(disable_help_flag = true)]
    Lfs {
        /// What `lfs` would be given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// One node of an instance; started by `kiln up`
    #[command(hide = true)]
    Node {
        /// The rank to be.
        #[arg(long)]
        rank: u32,
    },
}

/// `kiln up`. Each key of kiln.toml is a flag too; those are added when the command line is built.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many virtual nodes to start [default: cluster.nodes]
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// Read settings from this file [default: kiln.toml in the data directory, if there]
    #[arg(long, value_name = "FILE", env = "KILN_CONFIG")]
    pub config: Option<PathBuf>,
    /// Go to the background as soon as everything is ready
    #[arg(long)]
    pub detach: bool,
    /// Set one key of kiln.toml, as in `--set amqp.listen=127.0.0.1:5673`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `kiln demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Replay this syslog instead of a generated one
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// How many lines to generate
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub lines: u32,
    /// How many of them are tasks
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub tasks: u32,
    /// Leave the cluster running afterwards
    #[arg(long)]
    pub keep: bool,
    /// End with one JSON object and print nothing else
    #[arg(long)]
    pub json: bool,
    /// Give up when the tasks are not done after this long
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// `kiln topic`.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// List topics with their offsets and sizes
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Create a topic
    Create {
        /// Its name
        name: String,
        /// How many partitions
        #[arg(long, short, default_value_t = 1)]
        partitions: i32,
        /// A setting, as in `--config retention.ms=86400000`; may be repeated
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
    },
    /// Delete a topic and its records
    Delete {
        /// Its name
        name: String,
    },
    /// Print records
    Read {
        /// The topic
        name: String,
        /// Where to begin: `earliest`, `latest`, or an offset
        #[arg(long, default_value = "earliest")]
        from: String,
        /// Stop after this many records
        #[arg(long, short = 'n')]
        count: Option<u64>,
        /// Wait for more at the end
        #[arg(long, short)]
        follow: bool,
        /// Print each record as JSON, with offset, key and headers
        #[arg(long)]
        json: bool,
        /// The partition
        #[arg(long, default_value_t = 0)]
        partition: i32,
    },
    /// Append each line of standard input as a record
    Write {
        /// The topic
        name: String,
    },
}

/// `kiln group`.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List consumer groups
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a group's members, committed offsets and lag
    Describe {
        /// The group
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `kiln amqp`.
#[derive(Debug, Subcommand)]
pub(crate) enum Amqp {
    /// List queues, exchanges, bindings, connections or consumers
    List {
        /// What to list
        what: AmqpList,
        /// The virtual host
        #[arg(long, default_value = "/")]
        vhost: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop the ready messages of a queue
    Purge {
        /// The queue
        queue: String,
        /// The virtual host
        #[arg(long, default_value = "/")]
        vhost: String,
    },
    /// Delete a queue with its messages
    DeleteQueue {
        /// The queue
        queue: String,
        /// The virtual host
        #[arg(long, default_value = "/")]
        vhost: String,
    },
    /// Users
    #[command(subcommand)]
    User(User),
    /// Virtual hosts
    #[command(subcommand)]
    Vhost(Vhost),
    /// What a user may configure, write and read in a virtual host
    #[command(subcommand)]
    Permission(Permission),
}

/// What `kiln amqp list` lists.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum AmqpList {
    /// Queues with ready and unacknowledged messages
    Queues,
    /// Exchanges
    Exchanges,
    /// Bindings
    Bindings,
    /// Client connections
    Connections,
    /// Consumers
    Consumers,
}

/// `kiln amqp user`. Passwords come from standard input, never from the command line, where `ps` shows them.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List users and their tags
    List,
    /// Add a user; the password is read from standard input
    Add {
        /// The user's name
        name: String,
        /// Tags, such as administrator; may be repeated
        #[arg(long = "tag")]
        tags: Vec<String>,
    },
    /// Change a password; it is read from standard input
    Passwd {
        /// The user's name
        name: String,
    },
    /// Delete a user and its permissions
    Delete {
        /// The user's name
        name: String,
    },
}

/// `kiln amqp vhost`.
#[derive(Debug, Subcommand)]
pub(crate) enum Vhost {
    /// List virtual hosts
    List,
    /// Add a virtual host
    Add {
        /// Its name
        name: String,
    },
    /// Delete a virtual host with everything in it
    Delete {
        /// Its name
        name: String,
    },
}

/// `kiln amqp permission`.
#[derive(Debug, Subcommand)]
pub(crate) enum Permission {
    /// List permissions
    List,
    /// Set three regular expressions over resource names
    Set {
        /// The user
        user: String,
        /// What may be declared and deleted
        configure: String,
        /// What may be published to or bound
        write: String,
        /// What may be consumed
        read: String,
        /// The virtual host
        #[arg(long, default_value = "/")]
        vhost: String,
    },
    /// Take all permissions of a user in a virtual host
    Clear {
        /// The user
        user: String,
        /// The virtual host
        #[arg(long, default_value = "/")]
        vhost: String,
    },
}

/// `kiln flow`.
#[derive(Debug, Subcommand)]
pub(crate) enum Flow {
    /// List flows with the counts at each hop
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try a rule on past lines: what matches, why the others do not, and which fields are taken
    Test {
        /// The name of a flow in kiln.toml, or a filter expression
        rule: String,
        /// The lines to try it on; `-` is standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Read flows from this file [default: the settings of the running instance]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Show the fields of this many matching lines
        #[arg(long, value_name = "N", default_value_t = 3)]
        samples: usize,
    },
}

/// `kiln tasks`.
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// Print JSON: one array, or with --watch one object a line
    #[arg(long)]
    pub json: bool,
    /// Print rows as they change, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Only tasks that did not end with status 0
    #[arg(long)]
    pub failed: bool,
    /// At most this many rows, the newest
    #[arg(long, short = 'n', default_value_t = 50)]
    pub count: usize,
}

/// `kiln config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a file: every problem with its line, and what to do
    Check {
        /// The file [default: kiln.toml in the data directory]
        file: Option<PathBuf>,
    },
    /// Print each setting in force, and where it came from
    Show {
        /// Read this file instead of kiln.toml in the data directory
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Print kiln.toml with every setting, its default and what it is for
    Default,
}
