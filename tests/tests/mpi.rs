//! MPI programs built with MPICH and with Debian's Open MPI, unchanged, on four nodes.

use std::path::PathBuf;

use kiln_tests::{Cluster, binary, root, run};

/// Compiles tests/mpi/hello.c.
fn build(cluster: &Cluster, compiler: &str) -> PathBuf {
    let program = cluster.dir().join(format!("hello-{compiler}"));
    let mut command = cluster.command(&binary::program(compiler).to_string_lossy());
    let _ = run(command.arg("-o").arg(&program).arg(root().join("tests/mpi/hello.c"))).ok();
    program
}

/// Checks "rank R of 4 on HOST" for four ranks, on four hosts where nodes have names of their own.
fn assert_four_ranks(cluster: &Cluster, lines: &[&str], all: &str) {
    let mut ranks: Vec<_> = lines.iter().filter_map(|line| line.split(" on ").next()).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, ["rank 0 of 4", "rank 1 of 4", "rank 2 of 4", "rank 3 of 4"], "{all}");
    let mut hosts: Vec<_> = lines.iter().filter_map(|line| line.split(" on ").nth(1)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let expected = cluster.flux(&["run", "-n4", "-N4", "hostname"]).ok();
    let mut names = expected.sorted();
    names.dedup();
    assert_eq!(hosts, names, "{all}");
}

fn hello_on_four_nodes(compiler: &str) {
    let cluster = Cluster::start(4);
    let program = build(&cluster, compiler).to_string_lossy().into_owned();
    let ran = cluster.flux(&["run", "-n4", "-N4", &program]).ok();
    assert_four_ranks(&cluster, &ran.sorted(), &ran.to_string());

    let script = format!("#!/bin/sh\nflux run -n4 -N4 {program}\n");
    std::fs::write(cluster.dir().join("mpi.sh"), script).expect("a script");
    let id =
        cluster.flux(&["batch", "-n4", "-N4", "--output=mpi.out", "mpi.sh"]).ok().stdout.trim().to_owned();
    let _ = cluster.flux(&["job", "wait-event", &id, "clean"]).ok();
    let output = std::fs::read_to_string(cluster.dir().join("mpi.out")).expect("the batch job's output");
    assert_four_ranks(&cluster, &output.lines().collect::<Vec<_>>(), &output);

    let several = cluster.flux(&["run", "-n8", "-N4", &program]).ok();
    assert_eq!(
        several.stdout.lines().filter(|line| line.contains(" of 8 on ")).count(),
        8,
        "two ranks a node: {several}"
    );
}

#[test]
fn mpich() {
    hello_on_four_nodes("mpicc.mpich");
}

#[test]
fn open_mpi() {
    hello_on_four_nodes("mpicc.openmpi");
}
