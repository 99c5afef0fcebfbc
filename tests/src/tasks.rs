//! The demo's workload: lines that issue tasks among noise, and what must be true of the recorder's table afterwards.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Cluster;

/// The settings and flows of `kiln demo`, whose tasks here only run their commands: the script that keeps their results on
/// a filesystem is the demo's own.
pub fn demo_settings() -> String {
    include_str!("../../crates/kiln/src/demo/kiln.toml").replace(r#""sh", "keep-result", "#, "")
}

/// A line that issues the task `id`.
pub fn line(id: &str, task: &str) -> String {
    format!("<134>1 {} client taskd - - - TASK {id} {task}", now())
}

/// A line of the kind that fills real logs.
pub fn noise(n: usize) -> String {
    format!(
        "<38>1 {} client sshd {} - - Connection closed by 10.0.{}.{} port {}",
        now(),
        1000 + n,
        n / 250 % 250,
        n % 250,
        1024 + n % 60_000
    )
}

/// Now, as RFC 5424 writes it. `date` knows calendars.
fn now() -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Days since 1970 as a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The recorder's rows, by task id.
pub fn rows(cluster: &Cluster) -> BTreeMap<String, Value> {
    let table = cluster.kiln(&["tasks", "--json", "--count", "100000"]).ok().json();
    let mut rows = BTreeMap::new();
    for row in table.as_array().expect("an array of tasks") {
        let key = row["key"].as_str().expect("each row has its key").to_owned();
        assert!(rows.insert(key, row.clone()).is_none(), "two rows for one task: {row}");
    }
    rows
}

/// How many of `ids` the recorder has as completed.
pub fn completed(cluster: &Cluster, ids: &[String]) -> usize {
    let rows = rows(cluster);
    ids.iter().filter(|id| rows.get(*id).is_some_and(|row| !row["completed"].is_null())).count()
}

/// Checks that each of `ids` has completed with status 0, and that nothing ran to completion twice.
pub fn assert_each_completed_once(cluster: &Cluster, ids: &[String]) {
    let rows = rows(cluster);
    for id in ids {
        let row = rows.get(id).unwrap_or_else(|| panic!("lost: {id} has no row"));
        assert_eq!(row["status"], 0, "{id} ended otherwise: {row}");
    }
    let totals = &cluster.status()["services"]["tasks"];
    assert_eq!(totals["duplicated"], 0, "doubled: {totals}");
}

/// Checks the same by the job manager's own account: exactly one completed job for each of `count` tasks.
pub fn assert_one_completed_job_each(cluster: &Cluster, count: usize) {
    let listed = cluster.flux(&["jobs", "-n", "-a", "-c", "0", "-o", "{status_abbrev} {id}"]).ok();
    let completed = listed.stdout.lines().filter(|line| line.trim_start().starts_with("CD ")).count();
    assert_eq!(completed, count, "completed jobs for {count} tasks");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }
}
