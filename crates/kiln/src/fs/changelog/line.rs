//! A record of the changelog as it stands in the topic: docs/formats/fs-changelog.md.

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use kiln_fs::core::Fid;
use kiln_fs::core::changelog::{Entry, Kind, Place, Record};
use serde::{Deserialize, Serialize};

/// Lustre's `CLF_UNLINK_LAST`, and `CLF_RENAME_LAST`: an inode lost its last name by it.
const FLAG_LAST: u32 = 1;
/// In `lfs changelog`: the record tells a user and a group (`CLFE_UIDGID`).
const EXTRA_UIDGID: u32 = 1;
/// And a client (`CLFE_NID`).
const EXTRA_NID: u32 = 2;

/// One record. Fields without a value are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its place among the records of the MDT.
    pub index: u64,
    /// What happened, as `01CREAT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When: RFC 3339, in UTC.
    pub time: String,
    /// Lustre's flags.
    pub flags: u32,
    /// The FID of what changed; of a rename, what was moved.
    pub target: String,
    /// The directory of the name that it concerns; of a rename, the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// That name. What is no UTF-8 in it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name's bytes in hexadecimal, if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
    /// Of a rename, what lost its last name because the new name was its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// Of a rename, the old directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_parent: Option<String>,
    /// Of a rename, the old name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_name: Option<String>,
    /// Its bytes, if it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_name_hex: Option<String>,
    /// On whose behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// And of which group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The host of the mount.
    pub client: String,
    /// The job that did it, if it was in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobid: Option<String>,
}

/// A directory, a name, and that name's bytes if it is no UTF-8.
type Named = (Option<String>, Option<String>, Option<String>);

impl Line {
    /// The record of an MDT.
    pub(crate) fn of(entry: &Entry) -> Line {
        let Entry { index, client, record } = entry;
        let (parent, name, name_hex) = named(record.place.as_ref());
        let (source_parent, source_name, source_name_hex) = named(record.source.as_ref());
        let cred = record.cred.as_ref();
        Line {
            index: *index,
            kind: record.kind.to_string(),
            time: time(record).to_string(),
            flags: if record.unlinked.is_some() { FLAG_LAST } else { 0 },
            target: Fid(record.target).to_string(),
            parent,
            name,
            name_hex,
            replaced: record.unlinked.filter(|_| record.kind == Kind::Rename).map(|ino| Fid(ino).to_string()),
            source_parent,
            source_name,
            source_name_hex,
            uid: cred.map(|cred| cred.uid),
            gid: cred.map(|cred| cred.gid),
            client: client.clone(),
            jobid: cred.map(|cred| cred.job.clone()).filter(|job| !job.is_empty()),
        }
    }

    /// As `lfs changelog` of Lustre prints it.
    pub(crate) fn as_lfs(&self) -> String {
        let time = self.time.parse::<jiff::Timestamp>().map(|time| time.to_zoned(TimeZone::UTC));
        let time = time.and_then(|time| strtime::format("%H:%M:%S.%9f %Y.%m.%d", &time));
        let time = time.unwrap_or_else(|_| self.time.clone());
        let is_rename = self.source_name.is_some();
        let nothing = "[0x0:0x0:0x0]".to_owned();
        // Lustre's target of a rename is what was replaced; what was moved is its source.
        let target = if is_rename { self.replaced.as_ref().unwrap_or(&nothing) } else { &self.target };
        let mut words = vec![format!("{} {} {time} {:#x} t={target}", self.index, self.kind, self.flags)];
        words.extend(self.jobid.as_ref().map(|job| format!("j={job}")));
        words.push(match (self.uid, self.gid) {
            (Some(uid), Some(gid)) => format!("ef={:#x} u={uid}:{gid}", EXTRA_UIDGID | EXTRA_NID),
            _ => format!("ef={EXTRA_NID:#x}"),
        });
        words.push(format!("nid={}", self.client));
        if let (Some(parent), Some(name)) = (&self.parent, &self.name) {
            words.push(format!("p={parent} {name}"));
        }
        if let (Some(parent), Some(name)) = (&self.source_parent, &self.source_name) {
            words.push(format!("s={} sp={parent} {name}", self.target));
        }
        words.join(" ")
    }
}

fn named(place: Option<&Place>) -> Named {
    let Some(Place { parent, name }) = place else { return (None, None, None) };
    let hex = || name.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let name_hex = std::str::from_utf8(name).is_err().then(hex);
    (Some(Fid(*parent).to_string()), Some(String::from_utf8_lossy(name).into_owned()), name_hex)
}

/// A time that no calendar has is the epoch.
fn time(record: &Record) -> jiff::Timestamp {
    jiff::Timestamp::new(record.time.secs, record.time.nanos as i32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_fs::core::{Ino, SessionId, Time};
    use kiln_fs::wire::mds::Cred;

    fn entry(kind: Kind, place: Option<Place>) -> Entry {
        let time = Time { secs: 1_669_115_034, nanos: 129_724_000 };
        let cred = Some(Cred { uid: 1000, gid: 100, job: "dd.1000".to_owned() });
        let (target, session) = (Ino(0x11f), SessionId(1));
        let record = Record { kind, time, target, place, source: None, unlinked: None, session, cred };
        Entry { index: 7, client: "silicon2".to_owned(), record }
    }

    fn place(name: &[u8]) -> Place {
        Place { parent: Ino::ROOT, name: name.to_vec() }
    }

    #[test]
    fn a_record_in_the_topic() {
        let line = Line::of(&entry(Kind::Create, Some(place(b"test1"))));
        let json = serde_json::to_string(&line).unwrap();
        let expected = r#"{"index":7,"type":"01CREAT","time":"2022-11-22T11:03:54.129724Z","flags":0,"target":"[0x200000400:0x11f:0x0]","parent":"[0x200000007:0x1:0x0]","name":"test1","uid":1000,"gid":100,"client":"silicon2","jobid":"dd.1000"}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }

    #[test]
    fn a_record_as_lfs_prints_it() {
        let line = Line::of(&entry(Kind::Create, Some(place(b"test1"))));
        let expected = "7 01CREAT 11:03:54.129724000 2022.11.22 0x0 t=[0x200000400:0x11f:0x0] j=dd.1000 ef=0x3 u=1000:100 nid=silicon2 p=[0x200000007:0x1:0x0] test1";
        assert_eq!(line.as_lfs(), expected);
        let mut close = entry(Kind::Close, None);
        close.record.cred = None;
        let expected =
            "7 11CLOSE 11:03:54.129724000 2022.11.22 0x0 t=[0x200000400:0x11f:0x0] ef=0x2 nid=silicon2";
        assert_eq!(Line::of(&close).as_lfs(), expected);
    }

    #[test]
    fn a_rename_tells_what_was_moved_and_what_was_replaced() {
        let mut rename = entry(Kind::Rename, Some(place(b"new")));
        rename.record.source = Some(place(b"old"));
        rename.record.unlinked = Some(Ino(0x120));
        let line = Line::of(&rename);
        assert_eq!((line.flags, line.replaced.as_deref()), (1, Some("[0x200000400:0x120:0x0]")));
        let lfs = line.as_lfs();
        assert!(lfs.contains("0x1 t=[0x200000400:0x120:0x0]"), "{lfs}");
        assert!(lfs.ends_with("new s=[0x200000400:0x11f:0x0] sp=[0x200000007:0x1:0x0] old"), "{lfs}");
    }

    #[test]
    fn a_name_that_is_no_text_is_not_lost() {
        let line = Line::of(&entry(Kind::Create, Some(place(b"a\xff"))));
        assert_eq!((line.name.as_deref(), line.name_hex.as_deref()), (Some("a\u{fffd}"), Some("61ff")));
    }
}
