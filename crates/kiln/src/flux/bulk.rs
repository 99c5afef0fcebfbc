//! `flux bulksubmit`: one job for each combination of inputs.

use super::{
    fail::{Code, Fail},
    run::{Copy, SubmitJobs, copies, submit_all},
    terminal::say,
};
use std::io;

/// The most jobs of one bulk submission.
const JOBS_MAX: usize = 1_000_000;

const SEPARATOR: &str = ":::";

/// `flux bulksubmit`.
pub(super) async fn bulksubmit(template: SubmitJobs) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-bulksubmit";
    let (command, mut inputs) = split(&template.command);
    if inputs.is_empty() {
        let lines: Result<Vec<String>, io::Error> = io::stdin().lines().collect();
        inputs.push(lines.map_err(|error| Fail::error(PROGRAM, error))?);
    }
    let total =
        inputs.iter().map(Vec::len).try_fold(1usize, usize::checked_mul).filter(|&total| total <= JOBS_MAX);
    total.ok_or_else(|| Fail::error(PROGRAM, format!("more than {JOBS_MAX} jobs at once")))?;
    let mut jobs = Vec::new();
    for (number, combination) in combinations(&inputs).into_iter().enumerate() {
        let mut job = SubmitJobs { command: command.clone(), ..template.clone() };
        fill_inputs(&mut job, number, &combination);
        jobs.push(job);
    }
    if template.common.dry_run {
        for job in &jobs {
            say!("bulksubmit: submit {}", job.command.join(" "));
        }
        return Ok(0);
    }
    let mut all: Vec<Copy> = Vec::new();
    for job in &jobs {
        all.extend(copies(PROGRAM, job)?);
    }
    submit_all(PROGRAM, &template.following, false, all).await
}

/// The command, and the lists behind each `:::`.
fn split(words: &[String]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut parts = words.split(|word| word == SEPARATOR).map(<[String]>::to_vec);
    (parts.next().unwrap_or_default(), parts.collect())
}

/// Every choice of one element from each list, the last list changing fastest.
fn combinations(lists: &[Vec<String>]) -> Vec<Vec<String>> {
    lists.iter().fold(vec![Vec::new()], |choices, list| {
        let longer = |choice: &Vec<String>| {
            list.iter()
                .map(|next| [choice.as_slice(), std::slice::from_ref(next)].concat())
                .collect::<Vec<_>>()
        };
        choices.iter().flat_map(longer).collect()
    })
}

fn fill_inputs(job: &mut SubmitJobs, number: usize, combination: &[String]) {
    let names: Vec<String> = (0..combination.len()).map(|at| at.to_string()).collect();
    let seq = number.to_string();
    let mut values: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(combination.iter().map(String::as_str)).collect();
    values.extend([("", combination.first().map_or("", String::as_str)), ("seq", &seq), ("seq1", &seq)]);
    let next = (number + 1).to_string();
    if let Some((_, value)) = values.last_mut() {
        *value = &next;
    }
    fill_all(job, &values);
}

/// Fills `{name}` in everything that is a template.
pub(super) fn fill_all(job: &mut SubmitJobs, values: &[(&str, &str)]) {
    let common = &mut job.common;
    let words =
        job.command.iter_mut().chain(&mut common.env).chain(&mut common.setattr).chain(&mut common.setopt);
    let following = &mut job.following;
    let logs = [&mut following.log, &mut following.log_stderr];
    let files =
        [&mut common.output, &mut common.error, &mut common.input, &mut common.job_name, &mut common.cwd];
    for text in words.chain(files.into_iter().chain(logs).flatten()) {
        *text = fill(text, values);
    }
}

/// Fills `{name}`; what is not known, and `{{name}}`, stays as it is.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, brace) = rest.split_at(at);
        out.push_str(before);
        let doubled = brace.strip_prefix("{{").and_then(|inside| inside.find("}}")).map(|end| end + 4);
        if let Some(end) = doubled {
            out.push_str(&brace[..end]);
            rest = &brace[end..];
            continue;
        }
        let known = brace[1..].split_once('}').and_then(|(name, behind)| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value, behind))
        });
        let (filled, behind) = known.unwrap_or(("{", &brace[1..]));
        out.push_str(filled);
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let values = [("", "a"), ("0", "a"), ("1", "b"), ("cc", "7")];
        for (text, filled) in [
            ("{}", "a"),
            ("{0}-{1}", "a-b"),
            ("out.{{id}}.{cc}", "out.{{id}}.7"),
            ("awk '{print}'", "awk '{print}'"),
            ("{", "{"),
            ("${x}", "${x}"),
        ] {
            assert_eq!(fill(text, &values), filled);
        }
    }

    #[test]
    fn every_combination_the_last_list_fastest() {
        let words: Vec<String> = "echo {0} ::: a b ::: 1 2".split(' ').map(str::to_owned).collect();
        let (command, lists) = split(&words);
        assert_eq!(command, ["echo", "{0}"]);
        let all: Vec<String> = combinations(&lists).iter().map(|choice| choice.join("-")).collect();
        assert_eq!(all, ["a-1", "a-2", "b-1", "b-2"]);
    }
}
