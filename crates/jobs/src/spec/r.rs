//! Resource sets, version 1 (Flux RFC 20).

use super::json;
use kiln_types::{Hostlist, IdSet, Rank, Timestamp};
use serde_json::{Value, json};

/// The cores of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RNode {
    /// Its rank.
    pub rank: Rank,
    /// Its name.
    pub host: String,
    /// Its cores.
    pub cores: IdSet,
}

/// A resource set: some cores on some nodes, for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R {
    /// In the order of their ranks.
    pub nodes: Vec<RNode>,
    /// When it begins; the epoch when it always was.
    pub start: Timestamp,
    /// When it ends; the epoch when it never does.
    pub expiration: Timestamp,
    /// How many slots; none when it is not for a job.
    pub nslots: Option<u64>,
}

/// Why a text is no resource set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid R: {0}")]
pub struct BadR(&'static str);

impl R {
    /// RFC 20's JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let lite: Vec<Value> = self
            .groups()
            .iter()
            .map(|(ranks, cores)| json!({"rank": ranks.to_string(), "children": {"core": cores.to_string()}}))
            .collect();
        let hosts: Hostlist = self.nodes.iter().map(|node| node.host.as_str()).collect();
        let mut execution = json!({"R_lite": lite, "starttime": self.start.seconds_f64(), "expiration": self.expiration.seconds_f64()});
        if let Some(nslots) = self.nslots {
            execution["nslots"] = json!(nslots);
        }
        execution["nodelist"] = json!([hosts.to_string()]);
        json::spaced(&json!({"version": 1, "execution": execution}))
    }

    /// Reads RFC 20's JSON.
    ///
    /// # Errors
    /// When a part is missing or of a wrong type, or when ranks and hosts do not match in number.
    pub fn parse(text: &str) -> Result<Self, BadR> {
        let root: Value = serde_json::from_str(text).map_err(|_| BadR("not JSON"))?;
        if root["version"] != 1 {
            return Err(BadR("version must be 1"));
        }
        let execution = &root["execution"];
        let hosts = hosts(&execution["nodelist"])?;
        let mut pairs = Vec::new();
        for entry in execution["R_lite"].as_array().ok_or(BadR("R_lite must be an array"))? {
            let ranks = idset(&entry["rank"])?;
            if ranks.len() > hosts.len() as u64 {
                return Err(BadR("more ranks than hosts"));
            }
            let cores = idset(&entry["children"]["core"])?;
            pairs.extend(ranks.iter().map(|rank| (Rank(rank), cores.clone())));
        }
        pairs.sort_by_key(|&(rank, _)| rank);
        if pairs.len() != hosts.len() {
            return Err(BadR("ranks and hosts differ in number"));
        }
        let nodes = pairs.into_iter().zip(hosts.iter());
        Ok(Self {
            nodes: nodes.map(|((rank, cores), host)| RNode { rank, host: host.to_owned(), cores }).collect(),
            start: moment(&execution["starttime"]),
            expiration: moment(&execution["expiration"]),
            nslots: execution["nslots"].as_u64(),
        })
    }

    /// The scheduler's short form, `rank[0-1]/core[0-1] rank2/core0`.
    #[must_use]
    pub fn summary(&self) -> String {
        let parts = self.groups();
        let parts =
            parts.iter().map(|(ranks, cores)| format!("rank{}/core{}", ranks.bracketed(), cores.bracketed()));
        parts.collect::<Vec<_>>().join(" ")
    }

    /// Ranks with the same cores, together, in the order of their first rank.
    fn groups(&self) -> Vec<(IdSet, IdSet)> {
        let mut groups: Vec<(IdSet, IdSet)> = Vec::new();
        for node in &self.nodes {
            match groups.iter_mut().find(|(_, cores)| *cores == node.cores) {
                Some((ranks, _)) => ranks.extend([node.rank.0]),
                None => groups.push((IdSet::range(node.rank.0..=node.rank.0), node.cores.clone())),
            }
        }
        groups
    }
}

fn hosts(nodelist: &Value) -> Result<Hostlist, BadR> {
    let bad = BadR("nodelist must be an array of hostlists");
    let mut all = Hostlist::new();
    for part in nodelist.as_array().ok_or(bad.clone())? {
        let list: Hostlist = part.as_str().and_then(|text| text.parse().ok()).ok_or(bad.clone())?;
        list.iter().for_each(|host| all.push(host));
    }
    Ok(all)
}

fn idset(value: &Value) -> Result<IdSet, BadR> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or(BadR("rank and core must be idsets"))
}

fn moment(value: &Value) -> Timestamp {
    Timestamp::from_seconds_f64(value.as_f64().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(rank: u32, cores: &str) -> RNode {
        RNode { rank: Rank(rank), host: format!("n{rank}"), cores: cores.parse().unwrap() }
    }

    #[test]
    fn as_flux_writes_it() {
        let r = R {
            nodes: vec![node(0, "0-1"), node(1, "0-1"), node(2, "0")],
            start: Timestamp(1_795_373_244_090_885),
            expiration: Timestamp::EPOCH,
            nslots: Some(5),
        };
        assert_eq!(
            r.to_json(),
            r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-1", "children": {"core": "0-1"}}, {"rank": "2", "children": {"core": "0"}}], "starttime": 1795373244.090885, "expiration": 0.0, "nslots": 5, "nodelist": ["n[0-2]"]}}"#
        );
        assert_eq!(r.summary(), "rank[0-1]/core[0-1] rank2/core0");
        assert_eq!(R::parse(&r.to_json()), Ok(r));
    }

    #[test]
    fn refuses_nonsense() {
        for text in [
            "",
            "{}",
            r#"{"version":1,"execution":{"R_lite":[{"rank":"0-4294967295","children":{"core":"0"}}],"nodelist":["a"]}}"#,
        ] {
            assert!(R::parse(text).is_err(), "{text}");
        }
    }
}
