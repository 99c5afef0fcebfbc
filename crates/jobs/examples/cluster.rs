//! A leader and three members as processes with host names of their own, and a small `run` to try them.
//!
//! ```text
//! cargo run -p kiln-jobs --example cluster -- up /tmp/cluster 4
//! cargo run -p kiln-jobs --example cluster -- run /tmp/cluster -n4 -N4 hostname
//! ```

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_jobs::broker::{
    Jobs, LeaderSettings, NestedSettings, NodeSettings, nested, start_leader, start_member,
};
use kiln_jobs::core::{NodeConfig, exit_code};
use kiln_jobs::proto::{Filter, OutputEvent, Reply, Request, Stream, Submit, SubmitFlags};
use kiln_log::Volume;
use kiln_types::{IdSet, Rank};
use kiln_world::{RealClock, RealDisk, RealRng};

type Failure = Box<dyn std::error::Error>;

const CORES: u32 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["up", dir, size] => up(Path::new(dir), size),
        ["node", dir, size, rank] => node(Path::new(dir), size, rank),
        ["run", dir, rest @ ..] => in_runtime(run(Path::new(dir), rest)),
        ["broker", program @ ..] => in_runtime(nested_broker(program)),
        ["bench", dir, count] => in_runtime(bench(Path::new(dir), count)),
        _ => Err("usage: cluster up DIR SIZE | run DIR [-nN] [-NN] COMMAND... | bench DIR COUNT".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("cluster: {error}");
        ExitCode::FAILURE
    })
}

fn in_runtime(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

fn up(dir: &Path, size: &str) -> Result<ExitCode, Failure> {
    std::fs::create_dir_all(dir.join("run"))?;
    let program = std::env::current_exe()?;
    let ranks: u32 = size.parse()?;
    let start =
        |rank: u32| Command::new(&program).args(["node"]).arg(dir).args([size, &rank.to_string()]).spawn();
    let mut nodes: Vec<Child> = (0..ranks).map(start).collect::<Result<_, _>>()?;
    loop {
        for (rank, node) in (0..).zip(&mut nodes) {
            if let Some(status) = node.try_wait()? {
                eprintln!("rank {rank} ended: {status}; starting it again");
                *node = start(rank)?;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn socket(dir: &Path, rank: u32) -> PathBuf {
    dir.join("run").join(format!("local-{rank}"))
}

fn node(dir: &Path, size: &str, rank: &str) -> Result<ExitCode, Failure> {
    let (size, rank): (u32, u32) = (size.parse()?, rank.parse()?);
    let host = format!("silicon{}", rank + 1);
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).is_ok() {
        nix::unistd::sethostname(&host)?;
    }
    in_runtime(async {
        let node = NodeSettings {
            rank: Rank(rank),
            host,
            cores: IdSet::range(0..=CORES - 1),
            socket: socket(dir, rank),
            tmp: dir.join(format!("tmp-{rank}")),
            pmi_library: std::env::var_os("PMI_LIBRARY").map(PathBuf::from),
            bin_dir: None,
            jobid_path: String::new(),
            clock: Arc::new(RealClock::new()),
            rng: Arc::new(RealRng),
        };
        let mut handle = if rank == 0 {
            let volume = Volume::start(Arc::new(RealDisk::new(dir)?), Arc::new(RealClock::new()));
            let nodes = (0..size).map(|rank| NodeConfig {
                rank: Rank(rank),
                host: format!("silicon{}", rank + 1),
                cores: node.cores.clone(),
                excluded: false,
            });
            let nodes = nodes.collect();
            start_leader(LeaderSettings {
                node,
                volume,
                dir: "jobs/events".into(),
                nodes,
                attributes: Vec::new(),
            })
            .await?
        } else {
            start_member(node, &socket(dir, 0)).await?
        };
        match handle.stopped().await {
            Some(why) => Err(why.into()),
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

/// A jobspec as `flux run` makes it.
fn jobspec(tasks: u32, nodes: u32, command: &[&str]) -> String {
    let slots = tasks.div_ceil(nodes.max(1));
    let slot = serde_json::json!({"type": "slot", "count": if nodes > 0 { slots } else { tasks }, "label": "task",
        "with": [{"type": "core", "count": 1}]});
    let resources = if nodes > 0 {
        serde_json::json!([{"type": "node", "count": nodes, "with": [slot]}])
    } else {
        serde_json::json!([slot])
    };
    let environment: std::collections::BTreeMap<String, String> = std::env::vars().collect();
    let mut options = serde_json::json!({});
    if let Ok(path) = std::env::var("CLUSTER_OUTPUT") {
        options["output"] = serde_json::json!({"stdout": {"type": "file", "path": path, "label": true}});
    }
    serde_json::json!({"version": 1, "resources": resources,
        "tasks": [{"command": command, "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "cwd": std::env::current_dir().unwrap_or_default(),
            "environment": environment, "shell": {"options": options}}}})
    .to_string()
}

async fn run(dir: &Path, arguments: &[&str]) -> Result<ExitCode, Failure> {
    let (mut tasks, mut nodes, mut rest) = (1, 0, arguments);
    while let [first, others @ ..] = rest {
        match (first.strip_prefix("-n"), first.strip_prefix("-N")) {
            (Some(count), _) => tasks = count.parse()?,
            (_, Some(count)) => nodes = count.parse()?,
            _ => break,
        }
        rest = others;
    }
    let at = std::env::var("CLUSTER_RANK").ok().and_then(|rank| rank.parse().ok()).unwrap_or(0);
    // `-` in place of the directory: the instance that the environment names.
    let jobs = match std::env::var("FLUX_URI") {
        Ok(uri) if dir == Path::new("-") => Jobs::new(uri.trim_start_matches("local://")),
        _ => Jobs::new(socket(dir, at)),
    };
    let submit = Submit {
        jobspec: jobspec(tasks, nodes, rest),
        urgency: 16,
        flags: SubmitFlags::default(),
        key: None,
    };
    let Reply::Submitted { id, .. } = jobs.ask(&Request::Submit(Box::new(submit))).await? else {
        return Err("no id".into());
    };
    let mut from = 0;
    loop {
        let Reply::Output { pieces, finished } =
            jobs.ask(&Request::Output { id, from, wait_ms: 30_000 }).await?
        else {
            return Err("no output".into());
        };
        from += pieces.len() as u64;
        for piece in pieces {
            show(&piece.what);
        }
        if finished {
            break;
        }
    }
    let ended = jobs.wait(id).await?;
    if !ended.exception.is_empty() {
        eprintln!("{id}: {}", ended.exception);
    }
    Ok(ExitCode::from(ended.exit_code as u8))
}

fn show(event: &OutputEvent) {
    match event {
        OutputEvent::Data { stream: Stream::Stdout, task, data, .. } if !data.0.is_empty() => {
            print!("{task}: {}", String::from_utf8_lossy(&data.0));
        }
        OutputEvent::Data { stream: Stream::Stderr, task, data, .. } if !data.0.is_empty() => {
            eprint!("{task}: {}", String::from_utf8_lossy(&data.0));
        }
        OutputEvent::Data { .. } => {}
        other => eprintln!("{other:?}"),
    }
}

async fn nested_broker(program: &[&str]) -> Result<ExitCode, Failure> {
    let settings = NestedSettings {
        program: program.iter().map(|&word| word.to_owned()).collect(),
        bin_dir: None,
        clock: Arc::new(RealClock::new()),
        rng: Arc::new(RealRng),
    };
    Ok(ExitCode::from(nested(settings).await?))
}

async fn bench(dir: &Path, count: &str) -> Result<ExitCode, Failure> {
    let jobs = Arc::new(Jobs::new(socket(dir, 0)));
    let count: u32 = count.parse()?;
    let spec = jobspec(1, 0, &["true"]);
    let began = Instant::now();
    let first = jobs.submit(spec.clone(), format!("warm-{}", std::process::id())).await?;
    jobs.wait(first).await?;
    println!("one job: {:?}", began.elapsed());
    let began = Instant::now();
    let all: Vec<_> = (0..count)
        .map(|n| {
            let (jobs, spec) = (Arc::clone(&jobs), spec.clone());
            tokio::spawn(async move {
                let id = jobs.submit(spec, format!("bench-{}-{n}", std::process::id())).await?;
                jobs.wait(id).await
            })
        })
        .collect();
    let mut failed = 0;
    for job in all {
        failed += i32::from(job.await??.exit_code != 0);
    }
    let took = began.elapsed();
    println!("{count} jobs in {took:?}: {:.0}/s, {failed} failed", f64::from(count) / took.as_secs_f64());
    let Reply::Jobs(rows) = jobs.ask(&Request::List(Filter { max: 1, ..Filter::default() })).await? else {
        return Err("no rows".into());
    };
    println!("last: {:?}", rows.first().map(|row| (row.id, row.waitstatus.map(exit_code))));
    Ok(ExitCode::SUCCESS)
}
