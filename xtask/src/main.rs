//! Tidy: layering, licences, leftovers and links, as a test.

use std::path::Path;

mod settings;

fn main() -> anyhow::Result<()> {
    settings::write(Path::new("."))
}
