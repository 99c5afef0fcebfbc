//! Rules for a job's environment (`--env`, `--env-remove`, `--env-file`).

/// Variables that belong to the job or process around and say nothing true inside a new job.
const FOREIGN: [&str; 4] = ["FLUX_JOB_*", "FLUX_TASK_*", "PMI_*", "FLUX_KVS_NAMESPACE"];

/// What was asked.
pub(super) struct Rules<'a> {
    /// `--env`.
    pub(super) env: &'a [String],
    /// `--env-remove`.
    pub(super) remove: &'a [String],
    /// `--env-file`.
    pub(super) files: &'a [String],
}

/// The environment of the job: the caller's own, changed by the rules in order.
pub(super) fn apply(
    rules: &Rules<'_>,
    own: impl Iterator<Item = (String, String)>,
) -> Result<Vec<(String, String)>, String> {
    let own: Vec<(String, String)> =
        own.filter(|(name, _)| !FOREIGN.iter().any(|pattern| matches(pattern, name))).collect();
    let mut job = own.clone();
    for file in rules.files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("--env-file: {file}: {error}"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.for_each(|line| rule(line, &own, &mut job));
    }
    rules.env.iter().for_each(|text| rule(text, &own, &mut job));
    for pattern in rules.remove {
        remove(pattern, &mut job);
    }
    Ok(job)
}

fn rule(text: &str, own: &[(String, String)], job: &mut Vec<(String, String)>) {
    if let Some(pattern) = text.strip_prefix('-') {
        remove(pattern, job);
    } else if let Some((name, value)) = text.split_once('=') {
        let value = expand(value, job, own);
        set(job, name, &value);
    } else {
        for (name, value) in own.iter().filter(|(name, _)| matches(text, name)) {
            set(job, name, value);
        }
    }
}

fn remove(pattern: &str, job: &mut Vec<(String, String)>) {
    job.retain(|(name, _)| !matches(pattern, name));
}

fn set(job: &mut Vec<(String, String)>, name: &str, value: &str) {
    match job.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => job.push((name.to_owned(), value.to_owned())),
    }
}

/// Fills in `$NAME` and `${NAME}`; what is not set stays as it is.
fn expand(value: &str, job: &[(String, String)], own: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let length = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let (name, behind) = braced.unwrap_or_else(|| after.split_at(length));
        let known = job.iter().chain(own).find(|(known, _)| known == name);
        if let Some((_, value)) = known.filter(|_| !name.is_empty()) {
            out.push_str(value);
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out + rest
}

/// Whether a shell pattern of `*` and `?` matches the whole name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = strip(name, first) else { return false };
    let middle: Vec<&str> = parts.collect();
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for part in middle {
        let found =
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).find_map(|at| strip(&rest[at..], part));
        let Some(behind) = found else { return false };
        rest = behind;
    }
    let tail = rest.chars().count().checked_sub(last.chars().count());
    tail.and_then(|skip| rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(skip))
        .is_some_and(|at| strip(&rest[at..], last) == Some(""))
}

/// What follows `part`, in which `?` is any character.
fn strip<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let mut chars = text.chars();
    for wanted in part.chars() {
        let c = chars.next()?;
        if wanted != '?' && wanted != c {
            return None;
        }
    }
    Some(chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(env: &[&str], remove: &[&str]) -> Vec<String> {
        let own = [
            ("HOME", "/root"),
            ("PATH", "/bin"),
            ("PMI_FD", "3"),
            ("FLUX_JOB_ID", "f1"),
            ("FLUX_URI", "local:///x"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rules = Rules { env: &owned(env), remove: &owned(remove), files: &[] };
        apply(&rules, own.into_iter())
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn rules() {
        assert_eq!(applied(&[], &[]), ["HOME=/root", "PATH=/bin", "FLUX_URI=local:///x"]);
        assert_eq!(applied(&["-*"], &[]), [""; 0]);
        assert_eq!(applied(&["-*", "HO*", "A=b"], &[]), ["HOME=/root", "A=b"]);
        assert_eq!(applied(&["PATH=$PATH:/x${HOME}$NO"], &["FLUX_*", "HOME"]), ["PATH=/bin:/x/root$NO"]);
    }

    #[test]
    fn patterns() {
        for (pattern, name, yes) in [
            ("*", "", true),
            ("A*", "ABC", true),
            ("*C", "ABC", true),
            ("A*C", "AC", true),
            ("A*B*C", "AxBxC", true),
            ("A?C", "ABC", true),
            ("A?C", "AC", false),
            ("ABC", "ABCD", false),
            ("*BC", "BCD", false),
            ("A*A", "A", false),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }
}
