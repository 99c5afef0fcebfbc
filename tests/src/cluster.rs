//! One running instance of Kiln, on a data directory and ports of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Output, run, shown};
use crate::{binary, python, wait_until};

/// The listeners, as `kiln status --json` names them.
const LISTENERS: [&str; 4] = ["kafka", "amqp", "syslog", "console"];
/// How long an instance may take to stop by itself.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Lines of each node's log that a failing test prints.
const LOG_LINES_SHOWN: usize = 40;

/// What an instance is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Virtual nodes.
    pub nodes: u32,
    /// The text of kiln.toml, perhaps empty.
    pub toml: String,
    /// Further variables.
    pub env: Vec<(String, String)>,
}

impl Settings {
    /// `nodes` nodes, of two cores each whatever the machine has, and defaults for the rest.
    pub fn nodes(nodes: u32) -> Self {
        Self { nodes, toml: String::new(), env: vec![("KILN_NODE_CORES".into(), "2".into())] }
    }

    /// With this kiln.toml.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        text.clone_into(&mut self.toml);
        self
    }
}

/// A running instance. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    /// Taken out of the guard when the test has failed, so that the directory stays.
    dir: Option<TempDir>,
    settings: Settings,
    supervisor: Option<Child>,
    /// Where it listened when it was ready first; it is started again there.
    addresses: Vec<(&'static str, String)>,
}

impl Cluster {
    /// Starts `nodes` nodes and waits until they are ready.
    pub fn start(nodes: u32) -> Self {
        Self::start_with(Settings::nodes(nodes))
    }

    /// Starts an instance and waits until it is ready.
    pub fn start_with(settings: Settings) -> Self {
        // Sockets lie in the data directory, and their paths have to be short.
        let dir = tempfile::Builder::new().prefix("kiln-").tempdir_in("/tmp").expect("a temporary directory");
        binary::link_names(&dir.path().join("bin"));
        std::fs::create_dir(dir.path().join("data")).expect("a data directory");
        std::fs::write(dir.path().join("data/kiln.toml"), &settings.toml).expect("kiln.toml is written");
        let mut cluster = Self { dir: Some(dir), settings, supervisor: None, addresses: Vec::new() };
        cluster.up();
        cluster
    }

    /// Starts it, after a stop or a kill, on the same data and the same ports.
    pub fn up(&mut self) {
        let log = File::options().create(true).append(true).open(self.supervisor_log()).expect("a log file");
        let mut command = self.command("kiln");
        command.arg("up").args(["--nodes", &self.settings.nodes.to_string()]);
        for (name, address) in self.listen_on() {
            command.env(format!("KILN_{}_LISTEN", name.to_uppercase()), address);
        }
        command.envs(self.settings.env.clone()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.supervisor = Some(
            command.spawn().unwrap_or_else(|error| panic!("failed to start {}: {error}", shown(&command))),
        );
        let status = self.wait_ready();
        self.addresses = LISTENERS.iter().map(|name| (*name, text(&status["listeners"][name]))).collect();
    }

    /// Sets a variable for starts from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.settings.env.retain(|(known, _)| known != name);
        self.settings.env.push((name.to_owned(), value.to_owned()));
    }

    fn listen_on(&self) -> Vec<(&'static str, String)> {
        if self.addresses.is_empty() {
            return LISTENERS.iter().map(|name| (*name, "127.0.0.1:0".to_owned())).collect();
        }
        self.addresses.clone()
    }

    /// Waits until every node serves, and returns the status then.
    pub fn wait_ready(&mut self) -> Value {
        let child = self.supervisor.as_mut().expect("the supervisor was started");
        let data = self.dir.as_ref().expect("a running test has its directory").path().join("data");
        wait_until("every node is ready", || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                panic!("`kiln up` ended while it started: {status}");
            }
            let output =
                run(Command::new(binary::kiln()).arg("--data").arg(&data).args(["status", "--json"]));
            let status: Value = serde_json::from_str(&output.stdout).ok()?;
            (status["ready"] == true).then_some(status)
        })
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().expect("a running test has its directory").path()
    }

    /// A directory of the test's own, for files.
    pub fn dir(&self) -> PathBuf {
        let dir = self.path().join("files");
        std::fs::create_dir_all(&dir).expect("a directory for the test's files");
        dir
    }

    /// The instance's data directory.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn supervisor_log(&self) -> PathBuf {
        self.path().join("up.log")
    }

    /// A command with the instance's names and addresses in its environment: `kiln` and `flux` on PATH, `KILN_DATA`, `FLUX_URI`, and for clients `KAFKA`, `AMQP`,
    /// `SYSLOG` and `CONSOLE` as HOST:PORT.
    pub fn command(&self, program: &str) -> Command {
        let bin = self.path().join("bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
        let own = bin.join(program);
        let mut command = if own.exists() { Command::new(own) } else { Command::new(program) };
        command
            .env("PATH", std::env::join_paths(dirs).expect("paths without colons"))
            .env("KILN_DATA", self.data())
            .env("FLUX_URI", format!("local://{}", self.data().join("run/broker-0.sock").display()))
            .envs(self.addresses.iter().map(|(name, address)| (name.to_uppercase(), address)))
            .current_dir(self.path());
        command
    }

    /// Runs `kiln ARGUMENTS` on this instance.
    pub fn kiln(&self, arguments: &[&str]) -> Output {
        run(self.command("kiln").args(arguments))
    }

    /// Runs `flux ARGUMENTS` on this instance, in the test's own directory.
    pub fn flux(&self, arguments: &[&str]) -> Output {
        run(self.command("flux").args(arguments).current_dir(self.dir()))
    }

    /// Runs `tests/python/SCRIPT` with these arguments; it finds the instance by `KAFKA`, `AMQP` and so on.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Output {
        run(&mut self.python_command(script, arguments))
    }

    /// The command that [`Cluster::python`] runs.
    pub fn python_command(&self, script: &str, arguments: &[&str]) -> Command {
        let plain = python::script(script);
        let mut command = self.command(&plain.get_program().to_string_lossy());
        command.args(plain.get_args()).args(arguments).current_dir(self.dir());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    /// Where a listener listens, as HOST:PORT.
    pub fn address(&self, listener: &str) -> &str {
        let found = self.addresses.iter().find(|(name, _)| *name == listener);
        found.map_or_else(|| panic!("{listener} is no listener"), |(_, address)| address)
    }

    /// The port of a listener.
    pub fn port(&self, listener: &str) -> &str {
        self.address(listener).rsplit(':').next().expect("an address has a port")
    }

    /// `kiln status --json`.
    pub fn status(&self) -> Value {
        self.kiln(&["status", "--json"]).json()
    }

    /// The process of a node, while there is one.
    pub fn pid(&self, rank: usize) -> Option<Pid> {
        self.status()["nodes"][rank]["pid"].as_i64().map(|pid| Pid::from_raw(pid as i32))
    }

    /// kill -9 of a node; waits until its process is gone, not until it is started again.
    pub fn kill_node(&self, rank: usize) {
        let pid = wait_until("the node has a process", || self.pid(rank));
        kill_and_wait(pid);
    }

    /// kill -9 of the leader, and waits until another is ready.
    pub fn restart_leader(&mut self) {
        self.kill_node(0);
        self.wait_ready();
    }

    /// kill -9 of the supervisor and every node, at once.
    pub fn kill_everything(&mut self) {
        let status = self.status();
        self.kill_supervisor();
        for node in status["nodes"].as_array().into_iter().flatten() {
            if let Some(pid) = node["pid"].as_i64() {
                kill_and_wait(Pid::from_raw(pid as i32));
            }
        }
    }

    /// kill -9 of the supervisor alone.
    pub fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().expect("the supervisor is running");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// `kiln down`.
    pub fn down(&mut self) {
        let _ = self.kiln(&["down"]).ok();
        let mut child = self.supervisor.take().expect("the supervisor was running");
        let status = child.wait().expect("a child can be waited for");
        assert!(status.success(), "`kiln up` ended with {status} after `kiln down`");
    }

    fn tell_failure(&mut self) {
        let Some(dir) = self.dir.take().map(TempDir::keep) else { return };
        eprintln!("\n--- the test failed; its data is kept in {} ---", dir.display());
        let logs =
            std::fs::read_dir(dir.join("data/log")).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in std::iter::once(dir.join("up.log")).chain(logs) {
            let text = std::fs::read(&log)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- {} ---\n{}", log.display(), tail.join("\n"));
        }
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let target = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.file_stem()?.to_string_lossy().into_owned()));
        let target =
            target.as_deref().and_then(|name| name.rsplit_once('-')).map_or("", |(name, _)| name).to_owned();
        eprintln!(
            "--- run it alone: cargo build -p kiln && cargo test -p kiln-tests --test {target} -- --nocapture {test}"
        );
    }

    /// Asks the supervisor to stop, and kills it when it does not.
    fn stop(&mut self) {
        let Some(mut child) = self.supervisor.take() else { return };
        // It may have ended already, which is what is wanted.
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        let asked = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_WITHIN {
                let _ = child.kill();
                let _ = child.wait();
                assert!(
                    std::thread::panicking(),
                    "the instance did not stop within {} s",
                    STOP_WITHIN.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_failure();
        }
        self.stop();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// kill -9 of a process that is not this test's child, until it is gone.
pub fn kill_and_wait(pid: Pid) {
    // ESRCH: it has just died, which is what is wanted.
    let _ = kill(pid, Signal::SIGKILL);
    wait_until("a killed process is gone", || is_gone(pid).then_some(()));
}

/// Whether there is no such process, or only what its parent has not asked about yet.
pub fn is_gone(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        // The state follows the name, which is in parentheses and may hold anything.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}
