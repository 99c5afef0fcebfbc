//! `kiln fs mount` and `kiln fs umount`.

use std::process::ExitCode;

use crate::cli::Mount;
use crate::paths::DataDir;

pub(in crate::commands) fn mount(_data: &DataDir, _arguments: &Mount) -> anyhow::Result<ExitCode> {
    anyhow::bail!("mounting is not there yet")
}

pub(in crate::commands) fn umount(_dir: &std::path::Path, _lazy: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!("mounting is not there yet")
}
