//! Options of the commands that submit jobs.

use clap::Args;

/// Options that `run`, `submit`, `bulksubmit`, `batch` and `alloc` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Common {
    /// Time limit: minutes, or a duration like 90s, 1.5h
    #[arg(short = 't', long, value_name = "MIN|FSD")]
    pub(super) time_limit: Option<String>,
    /// Urgency from 0 (hold) to 31 (first), or hold, expedite, default
    #[arg(long, value_name = "N", default_value = "default")]
    pub(super) urgency: String,
    /// Name of the job; by default that of its command
    #[arg(long, value_name = "NAME")]
    pub(super) job_name: Option<String>,
    /// Queue to submit to
    #[arg(short, long, value_name = "NAME")]
    pub(super) queue: Option<String>,
    /// Bank to charge (kept as an attribute)
    #[arg(short = 'B', long, value_name = "NAME")]
    pub(super) bank: Option<String>,
    /// Nodes to run on, such as hosts:silicon[2-3], ranks:1, -hosts:silicon2
    #[arg(long, value_name = "CONSTRAINT")]
    pub(super) requires: Vec<String>,
    /// Wait for another job: afterok:ID, afterany:ID, afternotok:ID, after:ID
    #[arg(long, value_name = "URI")]
    pub(super) dependency: Vec<String>,
    /// Start no earlier than this: +10m, or seconds since the epoch
    #[arg(long, value_name = "TIME")]
    pub(super) begin_time: Option<String>,
    /// Shell option, KEY or KEY=VALUE
    #[arg(short = 'o', long, value_name = "OPT")]
    pub(super) setopt: Vec<String>,
    /// Jobspec attribute, KEY or KEY=VALUE
    #[arg(short = 'S', long, value_name = "KEY=VAL")]
    pub(super) setattr: Vec<String>,
    /// Environment rule: NAME=VALUE sets, NAME or a pattern keeps, -PATTERN removes
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    pub(super) env: Vec<String>,
    /// Remove what matches from the environment
    #[arg(long, value_name = "PATTERN")]
    pub(super) env_remove: Vec<String>,
    /// Environment rules from a file
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<String>,
    /// Working directory of the tasks
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// Resource limit, NAME=VALUE or -NAME
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    pub(super) rlimit: Vec<String>,
    /// Comma separated: waitable, debug
    #[arg(long, value_name = "FLAGS")]
    pub(super) flags: Vec<String>,
    /// Standard input from a file
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<String>,
    /// Standard output to a file; {{id}}, {{taskid}} and {{name}} are filled in
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<String>,
    /// Standard error to a file
    #[arg(long, value_name = "FILE")]
    pub(super) error: Option<String>,
    /// Put the task's number before each line
    #[arg(short, long)]
    pub(super) label_io: bool,
    /// Pass on output before its line is whole
    #[arg(short, long)]
    pub(super) unbuffered: bool,
    /// Signal before the time limit, SIG@TIME (kept as a shell option)
    #[arg(long, value_name = "SIG@TIME")]
    pub(super) signal: Option<String>,
    /// How tasks are dealt out to nodes: block or cyclic
    #[arg(long, value_name = "SCHEME")]
    pub(super) taskmap: Option<String>,
    /// Print the jobspec and submit nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Recognise a repeat: a second submit with the same key gives the first one's job
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
}

/// How many tasks, where.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Tasks {
    /// Number of tasks
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) ntasks: Option<u32>,
    /// Number of nodes
    #[arg(short = 'N', long, value_name = "N")]
    pub(super) nodes: Option<u32>,
    /// Cores for each task
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1)]
    pub(super) cores_per_task: u32,
    /// GPUs for each task
    #[arg(short = 'g', long, value_name = "N", default_value_t = 0)]
    pub(super) gpus_per_task: u32,
    /// Whole nodes, shared with nobody
    #[arg(short = 'x', long)]
    pub(super) exclusive: bool,
}

/// How many slots, where, for an instance of its own.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Slots {
    /// Number of slots
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) nslots: Option<u32>,
    /// Number of nodes
    #[arg(short = 'N', long, value_name = "N")]
    pub(super) nodes: Option<u32>,
    /// Cores in each slot
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1)]
    pub(super) cores_per_slot: u32,
    /// GPUs in each slot
    #[arg(short = 'g', long, value_name = "N", default_value_t = 0)]
    pub(super) gpus_per_slot: u32,
    /// Whole nodes, shared with nobody
    #[arg(short = 'x', long)]
    pub(super) exclusive: bool,
}
