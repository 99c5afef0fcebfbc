//! `/api/pools`: the pools of the nodes.

use hyper::Method;
use kiln_fs::wire::pool::{Pool, Request};
use kiln_telemetry::Metrics;

use super::fs::fault;
use super::{Answer, Routes, json, no_route};
use crate::api::ask::{Ask, Fault};

impl Routes {
    pub(super) async fn pools(&self, ask: &Ask, rest: &[&str]) -> Answer {
        match (&ask.method, rest) {
            (&Method::GET, []) => {
                let pools = self.fs.pools().await.map_err(fault)?;
                let mut pools: Vec<Pool> = pools.into_iter().map(|(_, pool)| pool).collect();
                // Each filesystem has to look through all of its inodes for that.
                if ask.parsed("paths", false)? {
                    self.fs.name_damaged(&mut pools).await;
                }
                json(&pools)
            }
            (&Method::GET, ["events"]) => json(&self.fs.pool_events().await.map_err(fault)?),
            // What is asked of a node says itself what it is.
            (&Method::POST, []) => {
                let request: Request = ask.json()?;
                let rank = match ask.query("node")? {
                    Some(_) => ask.parsed("node", 0)?,
                    None => self.rank_of(&request).await?,
                };
                json(&self.fs.pool(rank, &request).await.map_err(fault)?)
            }
            _ => Err(no_route(ask)),
        }
    }

    /// The node that has the pool which is meant; the first one when none has it.
    async fn rank_of(&self, request: &Request) -> Result<u32, Fault> {
        let Some(name) = request.pool() else { return Ok(0) };
        let pools = self.fs.pools().await.map_err(fault)?;
        Ok(pools.iter().find(|(_, pool)| pool.name == name).map_or(0, |(rank, _)| *rank))
    }

    /// What is counted of every pool.
    pub(super) async fn pool_metrics(&self, metrics: &Metrics) {
        // A node that does not answer has no figures.
        for (_, pool) in self.fs.pools().await.unwrap_or_default() {
            let labels = [("pool", pool.name.as_str())];
            let set = |name, help, value: u64| metrics.gauge(name, help, &labels).set(value as i64);
            set("kiln_pool_size_bytes", "Space of the pool, with what parity takes", pool.size);
            set("kiln_pool_allocated_bytes", "What of the pool is taken", pool.allocated);
            set(
                "kiln_pool_online",
                "Whether all disks are there and up to date",
                (pool.state == "ONLINE").into(),
            );
            set(
                "kiln_pool_damaged_records",
                "Records that are known to be damaged beyond repair",
                pool.damaged.len() as u64,
            );
            for disk in pool.all_disks() {
                let labels = [("pool", pool.name.as_str()), ("disk", disk.path.as_str())];
                let help = "Parts of records that were written again since the pool was opened";
                metrics.counter("kiln_pool_disk_mended", help, &labels).inc_by(disk.mended);
                for (kind, count) in ["read", "write", "checksum"].into_iter().zip(disk.errors) {
                    let labels = [("pool", pool.name.as_str()), ("disk", disk.path.as_str()), ("kind", kind)];
                    let help = "What went wrong on a disk since the pool was opened";
                    metrics.counter("kiln_pool_disk_errors", help, &labels).inc_by(count);
                }
            }
        }
    }
}
