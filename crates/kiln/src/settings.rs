//! Which file, variables and flags make up the settings of a command, and how they reach the node processes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_config::{Loaded, Sources, TomlFile};

use crate::commands::Usage;
use crate::paths::DataDir;

/// Keys and values from the command line: `("kafka.listen", "127.0.0.1:0")`.
pub(crate) type Flags = Vec<(String, String)>;

/// The file that is read: the one named, else `kiln.toml` in the data directory if it is there.
pub(crate) fn file(data: &DataDir, named: Option<&Path>) -> anyhow::Result<Option<TomlFile>> {
    let usual = data.root().join("kiln.toml");
    if named.is_none() && !usual.exists() {
        return Ok(None);
    }
    let path = named.map_or(usual, Path::to_owned);
    TomlFile::read(&path).map(Some).map_err(|error| {
        Usage(format!("failed to read {}: {error}; --config names another file", path.display())).into()
    })
}

/// Settings for a command that a person typed.
pub(crate) fn load(data: &DataDir, named: Option<&Path>, flags: Flags) -> anyhow::Result<(Loaded, Sources)> {
    let sources = Sources { file: file(data, named)?, env: Vec::new(), flags }.with_process_env();
    let loaded = kiln_config::load(&sources)?;
    for note in &loaded.notes {
        eprintln!("kiln: note: {note}");
    }
    Ok((loaded, sources))
}

/// What `kiln up` read, kept for its nodes so that a node started again tomorrow reads the same, whatever became of the file and the environment.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Handed {
    file: Option<(PathBuf, String)>,
    env: Vec<(String, String)>,
    flags: Flags,
}

/// Keeps `sources` for the nodes.
pub(crate) fn hand_over(data: &DataDir, sources: Sources) -> anyhow::Result<()> {
    let handed =
        Handed { file: sources.file.map(|f| (f.path, f.text)), env: sources.env, flags: sources.flags };
    crate::supervisor::write_whole(&data.effective_config(), &serde_json::to_vec(&handed)?)
        .with_context(|| format!("failed to write {}", data.effective_config().display()))
}

/// Settings for trying something before the instance is started again with it: its own, with its file as that reads now. Without an instance, those that
/// `kiln up` would take.
pub(crate) fn to_be_tried(data: &DataDir, named: Option<&Path>) -> anyhow::Result<Loaded> {
    if named.is_some() || !crate::supervisor::is_running(data) {
        return Ok(load(data, named, Vec::new())?.0);
    }
    let handed = handed(data)?;
    let file = file(data, handed.file.as_ref().map(|(path, _)| path.as_path()))?;
    Ok(kiln_config::load(&Sources { file, env: handed.env, flags: handed.flags })?)
}

/// What [`hand_over`] kept.
pub(crate) fn take_over(data: &DataDir) -> anyhow::Result<Loaded> {
    let handed = handed(data)?;
    let file = handed.file.map(|(path, text)| TomlFile { path, text });
    Ok(kiln_config::load(&Sources { file, env: handed.env, flags: handed.flags })?)
}

fn handed(data: &DataDir) -> anyhow::Result<Handed> {
    let path = data.effective_config();
    let text = std::fs::read(&path)
        .with_context(|| format!("failed to read {}; `kiln up` writes it", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("failed to read {}", path.display()))
}
