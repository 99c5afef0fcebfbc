//! Load generators and benchmarks.

fn main() {}
