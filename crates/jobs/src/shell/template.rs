//! Fills in `{{name}}` as Flux's shell does: a name that is not known stays as it is. Pure.

use kiln_types::JobId;

/// What a template may name about the job and its node.
#[derive(Clone, Debug)]
pub(crate) struct JobNames {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) nnodes: usize,
    pub(crate) node: u32,
    pub(crate) host: String,
    pub(crate) tmpdir: String,
}

/// What a template may name about a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskNames {
    pub(crate) task: u32,
    pub(crate) localid: u32,
}

/// Whether `template` has a different result for each task.
pub(crate) fn is_per_task(template: &str) -> bool {
    tags(template).any(|tag| tag == "taskid" || tag.starts_with("task."))
}

/// Whether `template` has a different result for each node.
pub(crate) fn is_per_node(template: &str) -> bool {
    tags(template).any(|tag| tag.starts_with("node.") || tag == "tmpdir")
}

fn tags(template: &str) -> impl Iterator<Item = &str> {
    template.split("{{").skip(1).filter_map(|rest| rest.split_once("}}").map(|(tag, _)| tag.trim()))
}

/// The text of `template` for a job, and for a task where one is given.
pub(crate) fn fill(template: &str, job: &JobNames, task: Option<TaskNames>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((tag, behind)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        match value(tag.trim(), job, task) {
            Some(value) => filled.push_str(&value),
            None => filled.extend(["{{", tag, "}}"]),
        }
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

fn value(tag: &str, job: &JobNames, task: Option<TaskNames>) -> Option<String> {
    Some(match tag {
        "id" | "jobid" | "id.f58" => job.id.to_string(),
        "id.f58plain" => job.id.to_f58_plain(),
        "id.dec" => job.id.number().to_string(),
        "id.hex" => job.id.to_hex(),
        "id.dothex" => job.id.to_dothex(),
        "name" => job.name.clone(),
        "size" | "ntasks" => job.size.to_string(),
        "nnodes" => job.nnodes.to_string(),
        "node.id" => job.node.to_string(),
        "node.name" => job.host.clone(),
        "tmpdir" => job.tmpdir.clone(),
        "taskid" | "task.id" | "task.rank" => task?.task.to_string(),
        "task.index" | "task.localid" => task?.localid.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> JobNames {
        JobNames {
            id: JobId::new(58),
            name: "sort".into(),
            size: 4,
            nnodes: 2,
            node: 1,
            host: "silicon2".into(),
            tmpdir: "/tmp/x".into(),
        }
    }

    #[test]
    fn known_names_are_filled_in_and_others_stay() {
        let task = Some(TaskNames { task: 3, localid: 1 });
        let cases = [
            ("flux-{{id}}.out", "flux-ƒ21.out"),
            ("{{id.f58plain}}.{{name}}.{{ id.dec }}", "f21.sort.58"),
            ("t.{{taskid}}.{{task.index}}", "t.3.1"),
            ("{{tmpdir}}/script", "/tmp/x/script"),
            ("{{node.name}}-{{node.id}} of {{nnodes}}", "silicon2-1 of 2"),
            ("{{nope}} {{ {}", "{{nope}} {{ {}"),
            ("{{", "{{"),
        ];
        for (template, filled) in cases {
            assert_eq!(fill(template, &names(), task), filled);
        }
        assert_eq!(fill("t.{{taskid}}", &names(), None), "t.{{taskid}}");
    }

    #[test]
    fn templates_tell_what_they_depend_on() {
        assert!(is_per_task("a.{{taskid}}") && is_per_task("{{ task.id }}") && !is_per_task("{{id}} taskid"));
        assert!(is_per_node("{{node.id}}") && !is_per_node("node.{{id}}"));
    }
}
