//! `flux batch` and `flux alloc`: jobs that are instances of their own.

use super::{
    attach::{self, Stdin, View},
    connect::Broker,
    fail::{Code, Fail},
    ids,
    options::{Common, Slots},
    request, run,
    terminal::say,
};
use clap::Parser;
use kiln_jobs::spec::{build::BATCH_COMMAND, json::spaced};
use std::{
    fs,
    io::{self, Read},
};

/// The longest script, in bytes.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

const OUTPUT_DEFAULT: &str = "flux-{{id}}.out";

/// Submits a script.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-batch",
    about = "enqueue a batch script",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Batch {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    slots: Slots,
    /// Take the rest as a command line and make the script of it
    #[arg(long)]
    wrap: bool,
    /// Script and its arguments; without them the script is read from standard input
    #[arg(trailing_var_arg = true, value_name = "SCRIPT")]
    script: Vec<String>,
}

/// Runs a command in an instance of its own.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-alloc",
    about = "allocate a new Flux instance for interactive use",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Alloc {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    slots: Slots,
    /// Accepted for compatibility
    #[arg(short, long, action = clap::ArgAction::Count, hide = true)]
    verbose: u8,
    /// Command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `flux batch`, given its words: those of the script's directives count as if they stood before them.
pub(super) async fn batch(words: Vec<String>, batch: Batch) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-batch";
    let (name, text) = script(PROGRAM, &batch)?;
    let mut all = directives(&text).map_err(|text| Fail::error(PROGRAM, text))?;
    all.extend(words);
    let mut batch = super::parse::<Batch>(all)?;
    if !text.starts_with("#!") {
        return Err(Fail::error(PROGRAM, "batch does not appear to start with '#!'"));
    }
    batch.common.output.get_or_insert_with(|| OUTPUT_DEFAULT.to_owned());
    batch.common.job_name.get_or_insert(name);
    let arguments = if batch.wrap { &[][..] } else { batch.script.get(1..).unwrap_or_default() };
    let command =
        BATCH_COMMAND.iter().map(|&word| word.to_owned()).chain(arguments.iter().cloned()).collect();
    let mut new = request::of_slots(PROGRAM, &batch.common, &batch.slots, command)?;
    new.script = Some(text);
    let jobspec = request::jobspec(PROGRAM, &new)?;
    if batch.common.dry_run {
        say!("{}", spaced(&jobspec));
        return Ok(0);
    }
    let submit = request::submit(PROGRAM, &batch.common, &jobspec)?;
    let broker = Broker::open(PROGRAM).await?;
    let id = run::enqueue(&broker, submit).await.map_err(|failure| Fail::error(PROGRAM, failure))?;
    say!("{}", ids::show(id));
    Ok(0)
}

/// Name and text of the script.
fn script(program: &str, batch: &Batch) -> Result<(String, String), Fail> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    match batch.script.first() {
        Some(first) if batch.wrap => {
            let words: Vec<String> = batch.script.iter().map(|word| quoted(word)).collect();
            Ok((base(first), format!("#!/bin/sh\n{}\n", words.join(" "))))
        }
        Some(path) => {
            let file =
                fs::File::open(path).map_err(|error| Fail::error(program, read_error(&error, path)))?;
            Ok((base(path), read(program, file)?))
        }
        None => Ok(("batchscript".to_owned(), read(program, io::stdin())?)),
    }
}

fn read_error(error: &io::Error, path: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("No such file or directory: '{path}'"),
        io::ErrorKind::PermissionDenied => format!("Permission denied: '{path}'"),
        _ => format!("{error}: '{path}'"),
    }
}

fn read(program: &str, from: impl Read) -> Result<String, Fail> {
    let mut text = String::new();
    let read = from.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Fail::error(program, format!("batch script: {error}")))?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(Fail::error(program, format!("batch script is longer than {SCRIPT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\"'\"'"))
    }
}

/// The words of all `#flux:` lines (Flux RFC 36).
fn directives(script: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for (number, line) in (1..).zip(script.lines()) {
        let comment = line.trim_start_matches(|c: char| !c.is_alphanumeric());
        if comment.len() == line.len() {
            continue;
        }
        if let Some(text) = comment.strip_prefix("flux:") {
            words.extend(
                split_words(text).ok_or_else(|| format!("line {number}: a quote is not closed: {line}"))?,
            );
        }
    }
    Ok(words)
}

/// Splits as a shell does, with quotes and comments and nothing else; none when a quote is not closed.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        inside => word.push(inside),
                    }
                }
            }
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

/// `flux alloc`.
pub(super) async fn alloc(alloc: Alloc) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-alloc";
    if alloc.command.is_empty() {
        let text = "an interactive shell needs a terminal of its own, which is not supported yet; give a command to run";
        return Err(Fail::error(PROGRAM, text));
    }
    let command =
        ["flux", "broker"].into_iter().map(str::to_owned).chain(alloc.command.iter().cloned()).collect();
    let jobspec =
        request::jobspec(PROGRAM, &request::of_slots(PROGRAM, &alloc.common, &alloc.slots, command)?)?;
    if alloc.common.dry_run {
        say!("{}", spaced(&jobspec));
        return Ok(0);
    }
    let submit = request::submit(PROGRAM, &alloc.common, &jobspec)?;
    let broker = Broker::open(PROGRAM).await?;
    let id = run::enqueue(&broker, submit).await.map_err(|failure| Fail::error(PROGRAM, failure))?;
    let first = "0".parse().map_or(Stdin::All, Stdin::Tasks);
    let view = View { label: alloc.common.label_io, stdin: Some(first), ..View::default() };
    attach::attach(&broker, id, &view).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_words() {
        let script = "#!/bin/sh\n#flux: -N2\n# flux: --job-name='my job' # why\n#FLUX: -n9\n// flux: -n4\nflux: -n5\necho flux: -n7\n";
        assert_eq!(directives(script).unwrap(), ["-N2", "--job-name=my job", "-n4"]);
        assert!(directives("#flux: --output='x\n").unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_command_becomes_a_script() {
        let batch = Batch::try_parse_from(["-n2", "--wrap", "sh", "-c", "echo 'hi'; x"]).unwrap();
        let (name, text) = script("flux-batch", &batch).unwrap();
        assert_eq!((name.as_str(), text.as_str()), ("sh", "#!/bin/sh\nsh -c 'echo '\"'\"'hi'\"'\"'; x'\n"));
    }

    #[test]
    fn a_missing_script_is_named() {
        let batch = Batch::try_parse_from(["nosuch.sh"]).unwrap();
        let fail = script("flux-batch", &batch).unwrap_err();
        assert_eq!(fail.to_string(), "flux-batch: ERROR: No such file or directory: 'nosuch.sh'");
    }
}
