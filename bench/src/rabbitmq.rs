//! The peer of the message broker: Debian's rabbitmq-server, started for the benchmark and ended with it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Debian's start script, which runs the server as whoever calls it.
const SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// It takes 5 to 25 s to start empty.
const START_WITHIN: Duration = Duration::from_secs(90);

/// A running server with data of its own.
pub(crate) struct RabbitMq {
    script: Child,
    server: u32,
    epmd_port: u16,
    dir: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl RabbitMq {
    /// Starts one under `parent`; `None` where it is not installed.
    pub(crate) fn start(parent: &Path) -> Result<Option<Self>> {
        if !Path::new(SCRIPT).exists() {
            return Ok(None);
        }
        let dir = parent.join(format!("kiln-bench-rabbitmq-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let (port, dist_port, epmd_port) = (free_port()?, free_port()?, free_port()?);
        let script = Command::new(SCRIPT)
            .env("HOME", &dir)
            .env("RABBITMQ_NODENAME", "kilnbench@localhost")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("none"))
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("out"))?)
            .stderr(fs::File::create(dir.join("err"))?)
            .spawn()
            .context("failed to start rabbitmq-server")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut peer = Self { server: 0, script, epmd_port, dir, address };
        peer.wait()?;
        peer.server = child_of(peer.script.id()).context("rabbitmq-server has no process of its own")?;
        Ok(Some(peer))
    }

    /// The process whose time counts.
    pub(crate) fn pid(&self) -> u32 {
        self.server
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.script.try_wait()?;
            ensure!(ended.is_none(), "rabbitmq-server ended: {}", fs::read_to_string(self.dir.join("err"))?);
            ensure!(
                started.elapsed() < START_WITHIN,
                "rabbitmq-server does not listen after {START_WITHIN:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // What fails here leaves processes of a directory that names itself; nothing else depends on it.
        if self.server != 0 {
            let _ = Command::new("kill").arg(self.server.to_string()).status();
        } else {
            let _ = self.script.kill();
        }
        let _ = self.script.wait();
        let _ = Command::new("epmd")
            .args(["-port", &self.epmd_port.to_string(), "-kill"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The first child of a process (proc(5), `task/TID/children`).
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
