//! `flux broker`: the instance inside a batch or alloc job.

use std::env;
use std::sync::Arc;
use std::time::Instant;

use kiln_jobs::broker::{NestedSettings, nested};
use kiln_world::{RealClock, RealRng};

use super::fail::{Code, Fail};

const PROGRAM: &str = "flux-broker";

/// `flux broker SCRIPT [ARGS]`, started once on each node of the enclosing job.
pub(super) async fn broker(words: &[String]) -> Result<Code, Fail> {
    let program: Vec<String> = words.iter().skip_while(|word| word.starts_with('-')).cloned().collect();
    if env::var_os("PMI_FD").is_none() || program.is_empty() {
        let text = "runs inside of jobs only; `kiln up` starts an instance on this machine";
        return Err(Fail::plain(PROGRAM, text));
    }
    let settings = NestedSettings {
        program: program.clone(),
        bin_dir: None, // the enclosing job's PATH leads to this same binary already
        clock: Arc::new(RealClock::new()),
        rng: Arc::new(RealRng),
    };
    let started = Instant::now();
    let code = nested(settings).await.map_err(|error| Fail::plain(PROGRAM, error))?;
    if code != 0 {
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("broker.err[0]: rc2.0: {} Exited (rc={code}) {seconds:.1}s", program.join(" "));
    }
    Ok(code)
}
