//! The variables that a task finds, as Flux's shell sets them. Pure.

use std::collections::BTreeMap;

use super::template::{JobNames, TaskNames};

/// What a broker knows that its tasks are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Socket of the local broker, for `FLUX_URI=local://PATH`.
    pub(crate) socket: String,
    /// The libpmi.so that Open MPI 4 loads; empty when there is none.
    pub(crate) pmi_library: String,
    /// A directory for the front of `PATH`, where this instance's `flux` is found; empty when there is none.
    pub(crate) bin_dir: String,
    /// Ids of the enclosing jobs, as `/ƒ1/ƒ2`; empty at the outermost instance.
    pub(crate) jobid_path: String,
    /// Whether the instance belongs to root, for whom Open MPI wants an explicit word.
    pub(crate) root: bool,
}

/// Variables that say which job and task a process belongs to; they are not true inside another one.
pub(crate) const OF_JOB: [&str; 11] = [
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
];
/// The library of the enclosing instance; a task gets this one's.
const PMI_LIBRARY: &str = "FLUX_PMI_LIBRARY_PATH";

/// The variables that all tasks of a job on one node have: those of the jobspec, and those about the job.
pub(crate) fn of_job(
    submitted: &BTreeMap<String, String>,
    job: &JobNames,
    around: &Surroundings,
    pmi: bool,
) -> BTreeMap<String, String> {
    let mut variables = submitted.clone();
    for name in OF_JOB.into_iter().chain([PMI_LIBRARY]) {
        variables.remove(name);
    }
    if !around.bin_dir.is_empty() {
        let path = variables.get("PATH").map_or("/usr/bin:/bin", String::as_str);
        let path = format!("{}:{path}", around.bin_dir);
        variables.insert("PATH".to_owned(), path);
    }
    let mut set = |name: &str, value: String| {
        variables.insert(name.to_owned(), value);
    };
    set("FLUX_JOB_ID", job.id.to_string());
    set("FLUX_JOB_ID_PATH", format!("{}/{}", around.jobid_path, job.id));
    set("FLUX_JOB_SIZE", job.size.to_string());
    set("FLUX_JOB_NNODES", job.nnodes.to_string());
    set("FLUX_JOB_TMPDIR", job.tmpdir.clone());
    set("FLUX_KVS_NAMESPACE", format!("job-{}", job.id.number()));
    set("FLUX_URI", format!("local://{}", around.socket));
    // Without a directory of its own, several jobs on a node clash in Open MPI's shared memory.
    set("OMPI_MCA_btl_vader_backing_directory", job.tmpdir.clone());
    if around.root {
        set("OMPI_ALLOW_RUN_AS_ROOT", "1".into());
        set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1".into());
    }
    if pmi {
        set("PMI_SIZE", job.size.to_string());
        if !around.pmi_library.is_empty() {
            set("FLUX_PMI_LIBRARY_PATH", around.pmi_library.clone());
        }
    }
    variables
}

/// The variables that differ from task to task; `pmi_fd` is the task's PMI socket.
pub(crate) fn of_task(task: TaskNames, pmi_fd: Option<i32>) -> Vec<(&'static str, String)> {
    let mut variables =
        vec![("FLUX_TASK_RANK", task.task.to_string()), ("FLUX_TASK_LOCAL_ID", task.localid.to_string())];
    if let Some(fd) = pmi_fd {
        variables.push(("PMI_FD", fd.to_string()));
        variables.push(("PMI_RANK", task.task.to_string()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_types::JobId;

    fn job() -> JobNames {
        JobNames {
            id: JobId::new(531_787_415_552),
            name: "env".into(),
            size: 2,
            nnodes: 1,
            node: 0,
            host: "vm".into(),
            tmpdir: "/run/j".into(),
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            socket: "/run/local-0".into(),
            pmi_library: "/usr/lib/flux/libpmi.so".into(),
            bin_dir: String::new(),
            jobid_path: String::new(),
            root: true,
        }
    }

    #[test]
    fn a_task_finds_what_flux_sets() {
        let submitted = BTreeMap::from([("HOME".into(), "/root".into()), ("PMI_RANK".into(), "9".into())]);
        let mut variables = of_job(&submitted, &job(), &around(), true);
        variables.extend(
            of_task(TaskNames { task: 1, localid: 1 }, Some(18))
                .into_iter()
                .map(|(name, value)| (name.into(), value)),
        );
        let text: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let id = job().id;
        assert_eq!(
            text,
            [
                format!("FLUX_JOB_ID={id}"),
                format!("FLUX_JOB_ID_PATH=/{id}"),
                "FLUX_JOB_NNODES=1".into(),
                "FLUX_JOB_SIZE=2".into(),
                "FLUX_JOB_TMPDIR=/run/j".into(),
                "FLUX_KVS_NAMESPACE=job-531787415552".into(),
                "FLUX_PMI_LIBRARY_PATH=/usr/lib/flux/libpmi.so".into(),
                "FLUX_TASK_LOCAL_ID=1".into(),
                "FLUX_TASK_RANK=1".into(),
                "FLUX_URI=local:///run/local-0".into(),
                "HOME=/root".into(),
                "OMPI_ALLOW_RUN_AS_ROOT=1".into(),
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1".into(),
                "OMPI_MCA_btl_vader_backing_directory=/run/j".into(),
                "PMI_FD=18".into(),
                "PMI_RANK=1".into(),
                "PMI_SIZE=2".into(),
            ]
        );
    }

    #[test]
    fn without_pmi_nothing_speaks_of_it() {
        let variables = of_job(&BTreeMap::from([("PMI_FD".into(), "3".into())]), &job(), &around(), false);
        assert!(variables.keys().all(|name| !name.contains("PMI")), "{variables:?}");
    }
}
