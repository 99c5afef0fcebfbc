//! Tidy: layering, licences, leftovers and links, as a test.

fn main() {}
