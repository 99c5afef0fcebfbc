//! kiln.toml as a file to start from, and the same table for docs/configuration.md.

use std::fmt::Write as _;

use serde::Serialize;

use crate::OTHER_VARIABLES;
use crate::chain::{Flow, Task};
use crate::settings::{Config, sections};

/// What stands at the head of the shipped file.
const HEAD: &str = "\
# kiln.toml: every setting, its default and what it is for.
# Each is also a flag of `kiln up` (--kafka-listen) and a variable (KILN_KAFKA_LISTEN); a flag goes before a variable, and that before this file.
# Sizes are written with a unit (\"64MiB\"), durations too (\"30s\", \"5m\", \"7d\"). `kiln config check FILE` finds mistakes.
";

/// The commented kiln.toml that ships with Kiln: the defaults, and examples of flows and tasks.
pub fn shipped() -> &'static str {
    include_str!("../kiln.toml")
}

/// The same text, made from the table of settings; a test keeps the two equal.
pub fn commented() -> String {
    let mut out = with_comments(&Config::default(), HEAD);
    out.push_str("\n# Flows and tasks. Nothing flows unless it is declared; for example:\n");
    for line in include_str!("../example.toml").lines() {
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
    }
    out
}

impl Config {
    /// These settings as a kiln.toml that reads back to the same.
    ///
    /// # Panics
    /// Never: flows and tasks hold nothing that TOML cannot write.
    pub fn to_toml(&self) -> String {
        #[derive(Serialize)]
        struct Chain<'a> {
            flow: &'a [Flow],
            task: &'a [Task],
        }
        let mut out = with_comments(self, "");
        let chain = Chain { flow: &self.flow, task: &self.task };
        out.push('\n');
        out.push_str(&toml::to_string(&chain).expect("flows and tasks are plain strings, lists and tables"));
        out
    }
}

fn with_comments(config: &Config, head: &str) -> String {
    let mut out = head.to_owned();
    for section in sections() {
        let _ = write!(out, "\n{}[{}]\n", comment(section.doc), section.name);
        for setting in section.settings {
            let _ = writeln!(out, "{}{} = {}", comment(setting.doc), setting.name, setting.show(config));
        }
    }
    out
}

fn comment(doc: &str) -> String {
    doc.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "# {}", line.trim());
        out
    })
}

/// The tables of docs/configuration.md.
pub fn reference() -> String {
    let mut out = String::new();
    for section in sections() {
        let _ = write!(out, "### `[{}]`\n\n{}\n", section.name, one_line(section.doc));
        out.push_str("\n| key | default | variable | what it does |\n|---|---|---|---|\n");
        for setting in section.settings {
            let default = setting.show(&Config::default());
            let _ = writeln!(
                out,
                "| `{}` | `{default}` | `{}` | {} |",
                setting.name,
                setting.env(),
                one_line(setting.doc)
            );
        }
        out.push('\n');
    }
    out.push_str("### Variables that are no settings\n\n| variable | what it does |\n|---|---|\n");
    for (name, what) in OTHER_VARIABLES {
        let _ = writeln!(out, "| `{name}` | {what} |");
    }
    out
}

fn one_line(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::load::parse;

    /// What to do when a generated file is behind its source.
    const WRITE: &str = "run `make settings` to write it anew";

    #[test]
    fn the_shipped_file_is_the_table() {
        assert!(shipped() == commented(), "crates/config/kiln.toml is behind the table of settings; {WRITE}");
    }

    #[test]
    fn the_shipped_file_says_the_defaults() {
        let loaded = parse(Path::new("kiln.toml"), shipped()).expect("the shipped file is sound");
        assert_eq!(loaded.config, Config::default());
    }

    #[test]
    fn the_documentation_is_the_table() {
        let page = include_str!("../../../docs/configuration.md");
        assert!(
            page.contains(&reference()),
            "docs/configuration.md is behind the table of settings; {WRITE}"
        );
    }

    #[test]
    fn the_examples_in_the_shipped_file_work_when_uncommented() {
        let demo = include_str!("../example.toml");
        let loaded = parse(Path::new("example.toml"), demo).expect("the example is sound");
        assert!(!loaded.config.flow.is_empty() && !loaded.config.task.is_empty());
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut config =
            parse(Path::new("example.toml"), include_str!("../example.toml")).expect("sound").config;
        config.cluster.name = "a \"quoted\" name\\".to_owned();
        config.kafka.listen = crate::Listen::Off;
        let text = config.to_toml();
        assert_eq!(parse(Path::new("x"), &text).expect("sound").config, config, "{text}");
    }
}
