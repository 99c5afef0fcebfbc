//! The process of a mount.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use kiln_config::Config;
use kiln_fs::client::data;
use kiln_fs::client::mount::{Handle, MountOptions, mount};
use kiln_fs::wire;
use kiln_fs::wire::mgs::{FsConfig, Reply, Request};
use kiln_net::blocking::Connection;
use kiln_world::RealRng;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use super::record::Record;
use super::{MOUNTED, Options, log_file};
use crate::paths::DataDir;

/// Pause before an MGS that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// An MGS that says nothing for so long is asked anew. It holds questions for less.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Mounts, and stays until somebody unmounts.
pub(super) fn run(
    data: &DataDir,
    name: &str,
    dir: &Path,
    options: Options,
    detached: bool,
) -> anyhow::Result<ExitCode> {
    if detached {
        // Neither the end of the terminal nor Ctrl-C in it concerns a mount.
        nix::unistd::setsid().context("failed to leave the terminal")?;
    }
    let config = first_config(data, name)?;
    let settings = crate::settings::take_over(data)?.config;
    crate::log_to_stderr(&settings);
    let signals = wait_for_signals()?;
    let _record = Record::hold(data, dir, &log_file(data, dir))?;
    let mounted = mount(&mount_options(config.clone(), dir, options, &settings), Arc::new(RealRng))
        .map_err(|error| anyhow::anyhow!("failed to {error}"))?;
    follow(data, config, mounted.handle());
    unmount_on(signals, mounted.handle())?;
    tracing::info!(fs = name, dir = %dir.display(), "mounted");
    if detached {
        let mut stdout = std::io::stdout();
        // Who started this may have been ended meanwhile; the mount is there all the same.
        let _ = writeln!(stdout, "{MOUNTED}").and_then(|()| stdout.flush());
    }
    mounted.wait();
    tracing::info!(fs = name, dir = %dir.display(), "unmounted, everything is written back");
    Ok(ExitCode::SUCCESS)
}

fn mount_options(config: FsConfig, dir: &Path, options: Options, settings: &Config) -> MountOptions {
    let mut mount = MountOptions::new(config, dir);
    mount.read_only = options.read_only;
    mount.allow_other |= options.allow_other;
    let dirty = settings.fs.client_dirty_size.0;
    mount.data = data::Settings {
        dirty_bytes_max: dirty,
        dirty_bytes_per_file_max: dirty / 2,
        ..data::Settings::default()
    };
    mount
}

/// What the MGS says of a filesystem now.
fn first_config(data: &DataDir, name: &str) -> anyhow::Result<FsConfig> {
    let socket = data.fs_socket(0);
    let mut connection =
        Connection::connect_unix(&socket).map_err(|error| crate::api::client::absent(data, error))?;
    connection.set_timeout(Some(SILENCE_MAX))?;
    let asked = wire::Request::Mgs(Request::Get { name: name.to_owned(), newer_than: 0 });
    match connection.call::<_, Reply>(&asked, &[]).context("failed to ask the MGS")?.0 {
        Reply::Get(Some(config)) => Ok(config),
        Reply::Get(None) => {
            anyhow::bail!(
                "there is no filesystem {name}; `kiln fs list` shows those there are, `kiln fs create {name}` makes it"
            )
        }
        other => anyhow::bail!("the MGS does not tell of {name}: {other:?}"),
    }
}

/// Tells the mount what changes: OSTs that are added, or drain.
fn follow(data: &DataDir, mut config: FsConfig, mount: Handle) {
    let socket = data.fs_socket(0);
    let follow = move || {
        let mut connection = None;
        while !mount.is_over() {
            match newer(&mut connection, &socket, &config) {
                Ok(Some(newer)) if newer.id == config.id && newer.version <= config.version => {}
                Ok(Some(newer)) if newer.id == config.id => {
                    tracing::info!(osts = newer.osts.len(), "the filesystem has changed");
                    mount.reconfigure(&newer);
                    config = newer;
                }
                // Also when there is another one of this name already.
                Ok(Some(_) | None) => {
                    tracing::error!("the filesystem was destroyed: programs get EIO; unmount it");
                    return mount.destroyed();
                }
                Err(error) => {
                    tracing::debug!(%error, "the MGS does not answer");
                    connection = None;
                    thread::sleep(RETRY);
                }
            }
        }
    };
    // It ends with the process, which waits for nothing that this does.
    thread::Builder::new()
        .name("fs-mgs".to_owned())
        .spawn(follow)
        .expect("a process that starts has threads");
}

fn newer(
    connection: &mut Option<Connection>,
    socket: &Path,
    config: &FsConfig,
) -> anyhow::Result<Option<FsConfig>> {
    let connection = match connection {
        Some(connection) => connection,
        none => {
            let mut fresh = Connection::connect_unix(socket)?;
            fresh.set_timeout(Some(SILENCE_MAX))?;
            none.insert(fresh)
        }
    };
    let asked = Request::Get { name: config.name.clone(), newer_than: config.version };
    match connection.call::<_, Reply>(&wire::Request::Mgs(asked), &[])?.0 {
        Reply::Get(config) => Ok(config),
        other => anyhow::bail!("the MGS answered another question: {other:?}"),
    }
}

/// Holds back the signals that end a mount, in this thread and those that it starts.
fn wait_for_signals() -> anyhow::Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("failed to hold back signals")?;
    Ok(signals)
}

/// Unmounts when a signal comes; programs that use the mount are not disturbed.
fn unmount_on(signals: SigSet, mount: Handle) -> anyhow::Result<()> {
    let listen = move || {
        while let Ok(signal) = signals.wait() {
            match mount.unmount() {
                Ok(()) => return,
                Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                    tracing::warn!(%signal, "programs still use the mount, so it stays; end them, and send the signal again");
                }
                Err(error) => tracing::error!(%signal, %error, "cannot unmount"),
            }
        }
    };
    thread::Builder::new().name("fs-signals".to_owned()).spawn(listen).context("failed to start a thread")?;
    Ok(())
}
