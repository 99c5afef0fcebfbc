//! The one binary: command line, daemon assembly, and the names it answers to.

fn main() {}
