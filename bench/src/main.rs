//! Load generators and benchmarks. Each prints a small table, and with `--json` one object.

mod log;

use clap::{Parser, Subcommand};

/// Measures Kiln, with the limit of the machine or a peer beside it.
#[derive(Parser)]
#[command(name = "kiln-bench")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable appends and big batches, beside the disk's own rates.
    Log(log::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Log(args) => log::run(&args),
    }
}
