//! What the process asks of the kernel before it starts threads.

use anyhow::Context as _;
use kiln_config::Hostnames;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getppid, sethostname};

/// Has the kernel end this process when its supervisor dies: a node without one would hold the data directory and nobody would start it again.
pub(super) fn follow_supervisor() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("failed to follow the supervisor")?;
    // It may have died before the line above.
    anyhow::ensure!(getppid().as_raw() != 1, "the supervisor is gone; `kiln up` starts nodes");
    Ok(())
}

/// Allows as many open files as this user may have: each partition, queue and connection keeps one open. Tasks get the limits that their jobspec names.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit on open files cannot be raised; many topics, queues or clients may not fit");
    }
}

/// Takes `name` as host name in a UTS namespace of its own. Must be called before any thread is started, since a namespace belongs to a thread.
pub(super) fn take_name(name: &str, how: Hostnames) -> anyhow::Result<()> {
    if how == Hostnames::Off {
        return Ok(());
    }
    let taken = unshare(CloneFlags::CLONE_NEWUTS).and_then(|()| sethostname(name));
    match taken {
        Ok(()) => Ok(()),
        Err(errno) if how == Hostnames::Require => {
            Err(refused(errno)).context("cluster.hostnames = \"require\"")
        }
        Err(errno) => {
            tracing::warn!(%errno, name, "this machine does not allow a host name per node; programs will see the machine's own");
            Ok(())
        }
    }
}

fn refused(errno: Errno) -> anyhow::Error {
    anyhow::anyhow!(
        "failed to make a UTS namespace: {errno}; run as root, or set cluster.hostnames = \"auto\""
    )
}

/// The cores that a node offers: `configured`, or as many as this process may use.
pub(super) fn cores(configured: u32) -> u32 {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}
