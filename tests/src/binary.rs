//! Where the built binary and what belongs to it lie.

use std::path::{Path, PathBuf};

/// The binary under test: `KILN_BIN`, or the one of the profile these tests were built in.
pub fn kiln() -> PathBuf {
    let path = std::env::var_os("KILN_BIN").map_or_else(|| target_dir().join("kiln"), PathBuf::from);
    assert!(path.exists(), "{} is not there; build it with: cargo build -p kiln", path.display());
    path
}

/// A test's executable is `target/PROFILE/deps/NAME`.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    test.ancestors().nth(2).expect("a test lies in deps/").to_owned()
}

/// Makes `dir` a directory to put in front of PATH: `kiln`, and `flux` and `lfs` as links to it.
pub fn link_names(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory for the binary's names");
    for name in ["kiln", "flux", "lfs"] {
        std::os::unix::fs::symlink(kiln(), dir.join(name)).expect("a link to the binary");
    }
}

/// A program that the tests need.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; run: make test-deps"))
}
