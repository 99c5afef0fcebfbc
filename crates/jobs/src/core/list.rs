//! Which jobs a list shows, and in what order.

use super::manager::Manager;
use crate::proto::{Filter, JobRow, JobState, ROWS_MAX};
use std::cmp::Reverse;

impl Manager {
    /// Rows of the jobs that the filter lets through: by the ids asked for, else waiting ones by priority, then
    /// running ones, then ended ones, the last two newest first.
    pub(super) fn list(&self, filter: &Filter) -> Vec<JobRow> {
        let max = if filter.max == 0 { ROWS_MAX } else { (filter.max as usize).min(ROWS_MAX) };
        if !filter.ids.is_empty() {
            let rows = filter.ids.iter().filter_map(|id| self.row(*id));
            return rows.filter(|row| passes(filter, row)).take(max).cloned().collect();
        }
        let mut active: Vec<&JobRow> = self.active_rows().filter(|row| passes(filter, row)).collect();
        active.sort_by_key(|row| order(row));
        let inactive = self.inactive_rows().filter(|row| passes(filter, row));
        active.into_iter().chain(inactive).take(max).cloned().collect()
    }
}

/// Waiting jobs by priority and id, then running ones by start, newest first.
fn order(row: &JobRow) -> (bool, Reverse<i64>, u64) {
    if row.state >= JobState::Run {
        let started = row.t_run.or(row.t_cleanup).unwrap_or(row.t_submit);
        (true, Reverse(started.0), u64::MAX - row.id.number())
    } else {
        (false, Reverse(row.priority.unwrap_or(i64::MAX)), row.id.number())
    }
}

fn passes(filter: &Filter, row: &JobRow) -> bool {
    let any_phase = filter.states.is_empty() && filter.results.is_empty();
    let phase = any_phase
        || filter.states.contains(&row.state)
        || row.result.is_some_and(|result| filter.results.contains(&result));
    phase
        && filter.userid.is_none_or(|userid| row.userid == userid)
        && filter.name.as_ref().is_none_or(|name| row.name == *name)
        && filter.since.is_none_or(|since| row.t_inactive.is_none_or(|ended| ended > since))
}
