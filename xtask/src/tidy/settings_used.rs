//! A setting that nothing reads is a promise that is not kept.

use super::{Finding, Tree};

const TABLE: &str = "crates/config/src/settings.rs";
const READERS: &str = "crates/kiln/src/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let readers: Vec<&str> =
        tree.files().filter(|(path, _)| path.starts_with(READERS)).map(|(_, text)| text).collect();
    let settings = kiln_config::sections().iter().flat_map(|section| section.settings);
    settings
        .filter(|setting| !is_read(&readers, setting.section, setting.name))
        .map(|setting| unread(&setting.key()))
        .collect()
}

/// Whether any reader has `section.name`, or `.name` where it has taken the section apart.
fn is_read(readers: &[&str], section: &str, name: &str) -> bool {
    let (whole, part) = (format!("{section}.{name}"), format!(".{name}"));
    readers
        .iter()
        .any(|text| text.contains(&whole) || (text.contains(&format!(".{section}")) && text.contains(&part)))
}

fn unread(key: &str) -> Finding {
    Finding::error(
        TABLE,
        0,
        format!("nothing in the binary reads {key}"),
        "use it, or take it out of the table",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_without_a_reader_is_told() {
        let reader = "let a = config.kafka.listen; let amqp = &config.amqp; amqp.heartbeat";
        let told: Vec<_> =
            check(&Tree::of(&[("crates/kiln/src/main.rs", reader)])).into_iter().map(|f| f.what).collect();
        assert!(
            !told.iter().any(|what| what.contains("kafka.listen") || what.contains("amqp.heartbeat")),
            "{told:?}"
        );
        assert!(told.iter().any(|what| what.contains("kafka.retention_age")), "{told:?}");
    }
}
