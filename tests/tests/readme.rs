//! Each block of README.md that is marked as ```` ```sh test ```` does what it says: it is run as it stands, with the built binary on PATH.

use std::process::Command;

use kiln_tests::{binary, root, run};

const MARK: &str = "```sh test";
/// On ports of the test's own, whatever else runs on this machine; the text stays as a reader would type it.
const LISTENERS: [&str; 4] = ["KAFKA", "AMQP", "SYSLOG", "CONSOLE"];

/// The marked blocks, each with the line it begins on.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == MARK {
            let block: Vec<_> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            blocks.push((number + 2, block.join("\n")));
        }
    }
    blocks
}

#[test]
fn every_marked_block_runs() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "README.md has no block marked {MARK}");
    for (line, block) in blocks {
        run_block(line, &block);
    }
}

fn run_block(line: usize, block: &str) {
    let dir = tempfile::Builder::new().prefix("kiln-").tempdir_in("/tmp").expect("a temporary directory");
    binary::link_names(&dir.path().join("bin"));
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", block]).current_dir(dir.path()).env("PATH", path);
    shell.env("HOME", dir.path()).env("KILN_DATA", dir.path().join("data")).env("KILN_NODE_CORES", "2");
    for name in LISTENERS {
        shell.env(format!("KILN_{name}_LISTEN"), "127.0.0.1:0");
    }
    let output = run(&mut shell);
    if output.code != 0 {
        // What the block left running would outlive the test.
        let _ = run(Command::new(binary::kiln()).arg("down").env("KILN_DATA", dir.path().join("data")));
    }
    assert_eq!(output.code, 0, "README.md:{line}: {output}");
}

#[test]
fn blocks_are_found_with_their_lines() {
    let text = "a\n```sh test\none\ntwo\n```\n```sh\nnot\n```\n  ```sh test\nthree\n  ```\n";
    assert_eq!(blocks(text), [(3, "one\ntwo".to_owned()), (10, "three".to_owned())]);
}
