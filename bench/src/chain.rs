//! The whole chain: from a line of syslog to the recorder's row, on four virtual nodes.
//!
//! The demo of the built binary is the load; its own table is what is read. There is no peer: nobody else ships this chain.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Lines and tasks of each load, and what it shows.
const LOADS: [(&str, u32, u32); 3] =
    [("20 tasks in 2 s", 5000, 20), ("200 tasks in 2 s", 5000, 200), ("2000 tasks at once", 2000, 2000)];

/// Options of `kiln-bench chain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kiln binary [default: the one beside this program]
    #[arg(long)]
    kiln: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs each load and prints latencies and rates.
pub(crate) fn run(args: &Args) -> Result<()> {
    let kiln = match &args.kiln {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("kiln"),
    };
    ensure!(kiln.exists(), "{} is not there; build it with `cargo build --release -p kiln`", kiln.display());
    let mut results = Vec::new();
    for (name, lines, tasks) in LOADS {
        let result = measure(&kiln, lines, tasks).with_context(|| format!("load `{name}`"))?;
        if !args.json {
            println!(
                "{name:<20} p50 {:>8} ms   p99 {:>8} ms   {:>5} tasks/s",
                result.p50, result.p99, result.rate
            );
        }
        results.push(json!({ "load": name, "latency_ms_p50": result.p50, "latency_ms_p99": result.p99, "tasks_per_s": result.rate }));
    }
    if args.json {
        println!("{}", Value::Array(results));
    }
    Ok(())
}

struct Measured {
    p50: f64,
    p99: f64,
    rate: f64,
}

fn measure(kiln: &PathBuf, lines: u32, tasks: u32) -> Result<Measured> {
    let demo = Command::new(kiln)
        .args(["demo", "--lines", &lines.to_string(), "--tasks", &tasks.to_string()])
        .output()
        .context("failed to run the demo")?;
    let text = String::from_utf8_lossy(&demo.stdout);
    ensure!(demo.status.success(), "the demo failed: {text}{}", String::from_utf8_lossy(&demo.stderr));
    // `latency p50 / p99  340 / 565.2 ms` and `in all  2.3 s, 88 tasks/s`
    let latencies = numbers(&text, "latency p50 / p99")?;
    let rate = numbers(&text, "in all")?;
    ensure!(latencies.len() == 2 && rate.len() == 2, "the demo's result table has changed:\n{text}");
    Ok(Measured { p50: latencies[0], p99: latencies[1], rate: rate[1] })
}

/// The numbers behind `name` in the demo's result table.
fn numbers(text: &str, name: &str) -> Result<Vec<f64>> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no line `{name}` in:\n{text}"))?;
    Ok(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}
