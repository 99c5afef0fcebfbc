//! `/api/fs`: filesystems and their targets.

use hyper::Method;

use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model::fs::ChangedOst;
use crate::fs::admin::AdminError;

impl Routes {
    pub(super) async fn filesystems(&self, ask: &Ask, rest: &[&str]) -> Answer {
        let fs = &self.fs;
        match (&ask.method, rest) {
            (&Method::GET, []) => json(&fs.list().await.map_err(fault)?),
            (&Method::GET, [name]) => json(&fs.status(name).await.map_err(fault)?),
            (&Method::GET, [name, "jobs"]) => json(&fs.jobs(name).await.map_err(fault)?),
            (&Method::POST, []) => {
                fs.create(ask.json()?).await.map_err(fault)?;
                done()
            }
            (&Method::DELETE, [name]) => {
                let removed = fs.destroy(name, ask.parsed("force", false)?).await.map_err(fault)?;
                json(&serde_json::json!({ "removed": removed }))
            }
            (&Method::POST, [name, "osts"]) => {
                let label = fs.add_ost(name, ask.json()?).await.map_err(fault)?;
                json(&serde_json::json!({ "label": label }))
            }
            (&Method::PUT, [name, "osts", index]) => {
                let Ok(index) = index.parse() else {
                    return Err(Fault::bad(format!("`{index}` is no index of an OST")));
                };
                let ChangedOst { draining } = ask.json()?;
                fs.set_draining(name, index, draining).await.map_err(fault)?;
                done()
            }
            _ => Err(no_route(ask)),
        }
    }
}

fn fault(error: AdminError) -> Fault {
    match error {
        AdminError::Bad(why) => Fault::bad(why),
        AdminError::Missing(why) => Fault::missing(why),
        AdminError::Failed(why) => Fault::failed(why),
    }
}
