//! `lfs changelog` and `lfs changelog_clear`, out of the topic that a filesystem's changelog is.

use std::path::PathBuf;

use hyper::Method;
use kiln_fs::core::Role;
use kiln_fs::core::target::label;

use super::{Done, Fail, say};
use crate::api::client::{change, escape, get};
use crate::api::model::{CommitOffset, Group, Record, Records};
use crate::fs::changelog::line::Line;
use crate::fs::changelog::topic;
use crate::paths::{self, DataDir};

/// Records asked for at a time.
const PAGE: u64 = 1000;
/// How long the instance holds a question at the end before it answers that nothing came.
const FOLLOW_MS: u64 = 1000;

/// What is to be printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    fs: String,
    /// First and last index.
    start: u64,
    end: Option<u64>,
    /// Begins where this group is.
    user: Option<String>,
    follow: bool,
}

impl Wanted {
    fn parse(words: &[String]) -> Result<Wanted, Fail> {
        let mut wanted = Wanted::default();
        let mut plain = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--follow" | "-f" => wanted.follow = true,
                "--user" | "-u" => {
                    let user = words.next().ok_or_else(|| Fail::usage("--user needs a group"))?;
                    wanted.user = Some(user.clone());
                }
                option if option.starts_with('-') => {
                    return Err(Fail::usage(format!("there is no option {option}")));
                }
                _ => plain.push(word.as_str()),
            }
        }
        let (mdt, range) =
            plain.split_first().ok_or_else(|| Fail::usage("an MDT is needed, as in scratch-MDT0000"))?;
        wanted.fs = fs_of(mdt)?;
        match range {
            [] => {}
            [start] => wanted.start = number(start)?,
            [start, end] => (wanted.start, wanted.end) = (number(start)?, Some(number(end)?)),
            _ => return Err(Fail::usage("an MDT, the first and the last record are all it takes")),
        }
        Ok(wanted)
    }
}

pub(super) fn changelog(words: &[String]) -> Done {
    let wanted = Wanted::parse(words)?;
    run(async |data| {
        let from = match &wanted.user {
            Some(group) => committed(data, group, &wanted.fs).await?,
            None => None,
        };
        let mut pages = Pages::new(&wanted.fs, from);
        while let Some(records) = pages.next(data, wanted.follow).await? {
            for line in records.iter().filter_map(line_of) {
                if wanted.end.is_some_and(|end| line.index > end) {
                    return Ok(());
                }
                if line.index >= wanted.start {
                    say(&line.as_lfs())?;
                }
            }
            if wanted.follow && crate::commands::nobody_reads() {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// `lfs changelog_clear MDT GROUP INDEX`: the group has read the records up to this one; 0 is all there are.
pub(super) fn clear(words: &[String]) -> Done {
    let [mdt, group, index] = words else {
        return Err(Fail::usage("an MDT, a group and the last record that it has read are needed"));
    };
    let (fs, index) = (fs_of(mdt)?, number(index)?);
    run(async |data| {
        let from = committed(data, group, &fs).await?;
        let mut pages = Pages::new(&fs, from);
        let mut read = from;
        while let Some(records) = pages.next(data, false).await? {
            let is_read = |line: &Line| index == 0 || line.index <= index;
            let done = |record: &&Record| line_of(record).as_ref().is_none_or(is_read);
            let last = records.iter().take_while(done).last();
            read = last.map(|record| record.offset + 1).or(read);
            if last.map(|record| record.offset) != records.last().map(|record| record.offset) {
                break;
            }
        }
        let Some(offset) = read else { return Ok(()) };
        let commit = CommitOffset { topic: topic(&fs), partition: 0, offset };
        let path = format!("/api/groups/{}/offsets", escape(group));
        change(data, Method::POST, &path, &commit).await.map(drop)
    })
}

/// The pages of a changelog's topic.
struct Pages {
    topic: String,
    from: String,
}

impl Pages {
    fn new(fs: &str, from: Option<i64>) -> Pages {
        let from = from.map_or_else(|| "earliest".to_owned(), |offset| offset.to_string());
        Pages { topic: topic(fs), from }
    }

    /// The next records; `None` at the end. One who follows never comes to the end.
    async fn next(&mut self, data: &DataDir, follow: bool) -> anyhow::Result<Option<Vec<Record>>> {
        let (topic, from) = (escape(&self.topic), escape(&self.from));
        let wait = if follow { FOLLOW_MS } else { 0 };
        let path = format!("/api/topics/{topic}/records?from={from}&max={PAGE}&wait_ms={wait}");
        let page: Records = get(data, &path).await?;
        self.from = page.next.to_string();
        Ok((follow || !page.records.is_empty()).then_some(page.records))
    }
}

/// The offset that a group is at; a group that was never heard of begins at the first record.
async fn committed(data: &DataDir, group: &str, fs: &str) -> anyhow::Result<Option<i64>> {
    let topic = topic(fs);
    let groups: Vec<Group> = get(data, "/api/groups").await?;
    let found = groups.into_iter().find(|known| known.name == group);
    let mut offsets = found.into_iter().flat_map(|group| group.offsets);
    Ok(offsets.find(|offset| offset.topic == topic).map(|offset| offset.committed))
}

/// What others have written to the topic is no record.
fn line_of(record: &Record) -> Option<Line> {
    serde_json::from_str(record.value.as_deref()?).ok()
}

/// The filesystem of an MDT's label.
fn fs_of(mdt: &str) -> Result<String, Fail> {
    let fs = mdt.split_once("-MDT").map_or(mdt, |(fs, _)| fs);
    if mdt == label(fs, Role::Mdt(0)) {
        return Ok(fs.to_owned());
    }
    Err(Fail::usage(format!("'{mdt}' is no MDT: write FSNAME-MDT0000")))
}

fn number(word: &str) -> Result<u64, Fail> {
    word.parse().map_err(|_| Fail::usage(format!("'{word}' is no number of a record")))
}

/// Asks the instance that `KILN_DATA` names, or the one that runs here.
fn run(asking: impl AsyncFnOnce(&DataDir) -> anyhow::Result<()>) -> Done {
    let given = std::env::var_os("KILN_DATA").map(PathBuf::from);
    let data = paths::resolve(given.as_deref()).map_err(Fail::failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fail::failed)?;
    runtime.block_on(asking(&data)).map_err(|error| Fail::failed(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Wanted, Fail> {
        Wanted::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read_as_lustre_has_them() {
        let all = parse("scratch-MDT0000").unwrap();
        assert_eq!(all, Wanted { fs: "scratch".to_owned(), ..Wanted::default() });
        let some = parse("--user backup my-fs-MDT0000 5 9 --follow").unwrap();
        let user = Some("backup".to_owned());
        assert_eq!(some, Wanted { fs: "my-fs".to_owned(), start: 5, end: Some(9), user, follow: true });
        for bad in ["", "scratch", "scratch-MDT0001", "scratch-MDT0000 x", "scratch-MDT0000 1 2 3", "--up"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
