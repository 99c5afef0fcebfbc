//! Load generators and benchmarks. Each prints a small table, and with `--json` one object.

mod amqp;
mod chain;
mod kafka;
mod log;
mod own;
mod parity;
mod pool;
mod pool_growth;
mod rabbitmq;

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
    /// Publish and consume on AMQP, with the broker's processor time per message.
    Amqp(amqp::Args),
    /// From a line of syslog to a completed task, on four virtual nodes.
    Chain(chain::Args),
    /// Produce and consume on the Kafka protocol, with the broker's processor time per message.
    Kafka(kafka::Args),
    /// Durable appends and big batches, beside the disk's own rates.
    Log(log::Args),
    /// Pools on files, beside plain files.
    Pool(pool::Args),
    /// What an operation on a pool costs when there are ever more records in it.
    PoolGrowth(pool_growth::Args),
    /// Parity of the pool's RAIDZ, beside copying.
    Parity(parity::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Amqp(args) => amqp::run(&args),
        Bench::Chain(args) => chain::run(&args),
        Bench::Kafka(args) => kafka::run(&args),
        Bench::Log(args) => log::run(&args),
        Bench::Pool(args) => pool::run(&args),
        Bench::PoolGrowth(args) => pool_growth::run(&args),
        Bench::Parity(args) => {
            parity::run(&args);
            Ok(())
        }
    }
}
