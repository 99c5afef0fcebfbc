//! Rounds of kill -9 at random moments while the demo's chain works: no task is lost, none completes twice.
//!
//! `KILN_CHAOS_ROUNDS` (3 unless set; `make chaos` does 20) and `KILN_CHAOS_SEED` choose; the seed is printed. A seed repeats the choices, not what the machine does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kiln_tests::random::{Random, seed_from};
use kiln_tests::{Cluster, Settings, relp, tasks, wait_until};

/// Rounds when nobody says.
const ROUNDS: u64 = 3;
/// Tasks of one round, and lines of noise before each.
const TASKS_PER_ROUND: usize = 40;
const NOISE_PER_TASK: usize = 10;
/// The longest time between two kills, in milliseconds, and between two lines, in microseconds.
const KILL_WITHIN_MS: u64 = 1200;
const LINE_EVERY: Duration = Duration::from_millis(4);
/// Kills in one round.
const KILLS_PER_ROUND: u64 = 2;
const NODES: u64 = 4;

#[test]
fn no_task_is_lost_or_doubled() {
    let rounds = std::env::var("KILN_CHAOS_ROUNDS")
        .map_or(ROUNDS, |text| text.parse().expect("KILN_CHAOS_ROUNDS is a number"));
    let seed = seed_from("KILN_CHAOS_SEED");
    println!(
        "{rounds} rounds; to repeat the choices: KILN_CHAOS_SEED={seed} make chaos CHAOS_ROUNDS={rounds}"
    );
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start_with(Settings::nodes(NODES as u32).toml(&tasks::demo_settings()));
    let mut issued = Vec::new();
    for round in 1..=rounds {
        let ids: Vec<String> = (0..TASKS_PER_ROUND).map(|n| format!("r{round}-{n:04}")).collect();
        let killed = one_round(&mut cluster, &mut random, &ids);
        issued.extend(ids);
        cluster.wait_ready();
        wait_until("every task has completed", || {
            (tasks::completed(&cluster, &issued) == issued.len()).then_some(())
        });
        tasks::assert_each_completed_once(&cluster, &issued);
        tasks::assert_one_completed_job_each(&cluster, issued.len());
        let totals = cluster.status()["services"]["tasks"].clone();
        println!(
            "round {round}: killed {}; {} issued, {} completed, 0 lost, {} doubled",
            killed.join(", "),
            issued.len(),
            totals["completed"],
            totals["duplicated"]
        );
    }
}

/// Sends the tasks of one round while processes die; returns who did.
fn one_round(cluster: &mut Cluster, random: &mut Random, ids: &[String]) -> Vec<String> {
    let lines = lines(ids, random);
    let address = cluster.address("syslog").to_owned();
    let sent = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            relp::send(
                &lines,
                || address.clone(),
                |index| {
                    sent.store(index, Ordering::Relaxed);
                    std::thread::sleep(LINE_EVERY);
                },
            );
            done.store(true, Ordering::Relaxed);
        });
        let killed = (0..KILLS_PER_ROUND).map(|_| kill_somebody(cluster, random)).collect();
        wait_until("every line was acknowledged", || done.load(Ordering::Relaxed).then_some(()));
        killed
    })
}

/// Tasks among noise. Most take a moment, so that processes die while tasks run.
fn lines(ids: &[String], random: &mut Random) -> Vec<String> {
    let mut lines = Vec::new();
    for id in ids {
        lines.extend((0..NOISE_PER_TASK).map(tasks::noise));
        let task = match random.below(3) {
            0 => "checksum path=/etc/hostname".to_owned(),
            _ => format!("wait seconds=0.{}", 1 + random.below(5)),
        };
        lines.push(tasks::line(id, &task));
    }
    lines
}

/// Waits a moment, then ends the leader, a node, or, now and then, the supervisor, which is started again by hand as an administrator would.
fn kill_somebody(cluster: &mut Cluster, random: &mut Random) -> String {
    std::thread::sleep(Duration::from_millis(random.below(KILL_WITHIN_MS)));
    match random.below(8) {
        0 => {
            cluster.kill_supervisor();
            cluster.up();
            "the supervisor".to_owned()
        }
        1..=3 => {
            cluster.kill_node(0);
            "the leader".to_owned()
        }
        _ => {
            let rank = 1 + random.below(NODES - 1);
            cluster.kill_node(rank as usize);
            format!("rank {rank}")
        }
    }
}
