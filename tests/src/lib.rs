//! The harness of the black-box tests: starts the built binary and drives stock clients against it.
//!
//! Each test has a [`Cluster`] of its own, on a data directory and ports of its own. A test that fails prints what every node said, keeps the data directory, and
//! prints the command that runs it alone.

#![expect(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

pub mod binary;
pub mod cluster;
pub mod filesystem;
pub mod process;
pub mod python;
pub mod random;
pub mod relp;
pub mod tasks;
pub mod wait;

pub use cluster::{Cluster, Settings};
pub use process::{Output, run};
pub use wait::wait_until;

use std::path::{Path, PathBuf};

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project's root")
}

/// Real logs that do not belong to the project, where they lie beside it. A test that needs one prints a note and passes when they do not.
pub fn sample_log(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data/loghub").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("note: not shown here, since {} is missing", path.display());
    None
}
