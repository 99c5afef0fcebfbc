//! Builds `libpmi.so` and leaves it where the binary can take it in whole, so that Kiln stays one file to copy.
//!
//! The library has no dependencies, and so one call of the compiler makes it; cargo cannot yet hand one crate's cdylib to another.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let source = Path::new("../pmi/src");
    println!("cargo:rerun-if-changed={}", source.display());
    let library = PathBuf::from(variable("OUT_DIR")).join("libpmi.so");
    let status = Command::new(variable("RUSTC"))
        .args([
            "--crate-name",
            "pmi",
            "--crate-type",
            "cdylib",
            "--edition",
            "2024",
            "-C",
            "opt-level=2",
            "-C",
            "strip=symbols",
        ])
        .args(["--target", &variable("TARGET"), "-C", "link-arg=-Wl,-soname,libpmi.so.0"])
        .arg("-o")
        .arg(&library)
        .arg(source.join("lib.rs"))
        .status()
        .expect("cargo names the compiler it runs with");
    assert!(status.success(), "failed to build libpmi.so: {status}");
}
