//! A broker of our own, in another process, so that its processor time can be told from the benchmark's.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// A broker in a process of its own, with data that goes with it.
pub(crate) struct Own {
    child: Child,
    address: String,
    dir: PathBuf,
}

impl Own {
    /// Runs this program again as `BENCH --serve DIR`, with a new directory under `parent`.
    pub(crate) fn start(bench: &str, parent: &Path) -> Result<Self> {
        let dir = parent.join(format!("kiln-bench-{bench}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([bench, "--serve"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("its output is a pipe")?;
        let mut own = Self { child, address: String::new(), dir };
        BufReader::new(out).read_line(&mut own.address)?;
        own.address.truncate(own.address.trim_end().len());
        ensure!(!own.address.is_empty(), "the broker did not start");
        Ok(own)
    }

    /// Where it listens: HOST:PORT.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // It is ours alone; whatever fails here leaves a directory behind and nothing else.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// In the broker's process: tells where it listens.
pub(crate) fn announce(address: impl Display) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

/// In the broker's process: returns when standard input ends, that is when the benchmark is gone.
pub(crate) async fn parent_gone() {
    let (gone, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Ends with an error or with the end of input; both mean that nobody is there.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = gone.send(()); // nobody waits any more
    });
    // An error would mean that the thread is gone, which is the same.
    drop(told.await);
}

/// User and system time of a process (proc(5), `stat` fields 14 and 15, in ticks of 10 ms).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
