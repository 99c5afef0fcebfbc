//! Gives the shared library the soname that programs linked against Flux's own libpmi record.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libpmi.so.0");
    println!("cargo::rerun-if-changed=build.rs");
}
