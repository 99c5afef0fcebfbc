//! Who may import whom, read from the manifests (docs/decisions/0001-the-house.md).

use std::collections::BTreeSet;

use super::{Finding, Tree, tree::numbered};

/// Foundations know nothing of services.
const FOUNDATIONS: &[&str] =
    &["types", "world", "log", "store", "pool", "net", "auth", "telemetry", "config"];
/// Services import foundations, never each other.
const SERVICES: &[&str] = &["amqp", "kafka", "jobs", "fs", "flow", "console"];
/// Loaded by other people's programs: stands alone.
const LONERS: &[&str] = &["pmi"];
/// Packages that may read command lines and TOML.
const KNOWS_TOML: &[&str] = &["kiln-config", "kiln", "kiln-bench", "kiln-tests", "xtask"];
/// Packages that may use errors without a type.
const KNOWS_ANYHOW: &[&str] = &["kiln", "kiln-bench", "kiln-tests", "xtask"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .filter(|(path, _)| is_member_manifest(path))
        .flat_map(|(path, text)| manifest(path, text))
        .collect()
}

fn is_member_manifest(path: &str) -> bool {
    path.ends_with("/Cargo.toml")
}

/// The crate that `package` is, without the prefix that all share.
fn short(package: &str) -> &str {
    package.strip_prefix("kiln-").unwrap_or(package)
}

fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::error(path, 1, format!("no manifest: {error}"), "mend it")],
    };
    let package =
        table.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str).unwrap_or_default();
    let mut findings = Vec::new();
    for dependency in dependencies(&table) {
        if let Some(why) = forbidden(package, &dependency) {
            let line = numbered(text)
                .find(|(_, line)| line.starts_with(&dependency))
                .map_or(1, |(number, _)| number);
            let what = format!("{package} imports {dependency}: {why}");
            findings.push(Finding::error(
                path,
                line,
                what,
                "let the binary tie them, through a small trait of the crate that needs it",
            ));
        }
    }
    let lints = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if lints != Some(true) {
        findings.push(Finding::error(path, 1, "has lints of its own", "write [lints] workspace = true"));
    }
    findings
}

fn dependencies(table: &toml::Table) -> BTreeSet<String> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    kinds
        .iter()
        .filter_map(|kind| table.get(*kind)?.as_table())
        .flat_map(|deps| deps.keys().cloned())
        .collect()
}

/// Why `package` must not depend on `dependency`, if so.
fn forbidden(package: &str, dependency: &str) -> Option<&'static str> {
    let (from, to) = (short(package), short(dependency));
    let ours = dependency.starts_with("kiln");
    let to_service = ours && SERVICES.contains(&to);
    match dependency {
        "toml" | "clap" if !KNOWS_TOML.contains(&package) => {
            return Some("only config and the binary know TOML and command lines");
        }
        "anyhow" if !KNOWS_ANYHOW.contains(&package) => return Some("libraries have typed errors"),
        _ => {}
    }
    if SERVICES.contains(&from) && to_service {
        return Some("a service never imports a service");
    }
    if FOUNDATIONS.contains(&from) && to_service {
        return Some("a foundation knows nothing of services");
    }
    if LONERS.contains(&from) && ours {
        return Some("it is loaded into other people's programs and stands alone");
    }
    if dependency == "kiln" {
        return Some("nothing is built on the binary");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(package: &str, dependencies: &str) -> Vec<String> {
        let text = format!(
            "[package]\nname = \"{package}\"\n[lints]\nworkspace = true\n[dependencies]\n{dependencies}\n"
        );
        check(&Tree::of(&[("crates/x/Cargo.toml", &text)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn services_do_not_meet() {
        assert_eq!(findings("kiln-amqp", "kiln-log.workspace = true"), Vec::<String>::new());
        let told = findings("kiln-amqp", "bytes.workspace = true\nkiln-kafka.workspace = true");
        assert!(
            told[0].starts_with("crates/x/Cargo.toml:7: error: kiln-amqp imports kiln-kafka"),
            "{told:?}"
        );
        assert_eq!(findings("kiln-log", "kiln-jobs.workspace = true").len(), 1);
        assert_eq!(findings("kiln", "kiln-jobs.workspace = true\nkiln-kafka.workspace = true").len(), 0);
    }

    #[test]
    fn toml_stays_in_config() {
        assert_eq!(findings("kiln-flow", "toml.workspace = true").len(), 1);
        assert_eq!(findings("kiln-config", "toml.workspace = true").len(), 0);
        assert_eq!(findings("kiln-flow", "anyhow.workspace = true").len(), 1);
        assert_eq!(findings("pmi", "kiln-types.workspace = true").len(), 1);
    }

    #[test]
    fn lints_are_shared() {
        let tree = Tree::of(&[("crates/x/Cargo.toml", "[package]\nname = \"x\"\n")]);
        assert_eq!(check(&tree).len(), 1);
    }
}
