//! `lfs setquota`: limits, and how long more than a soft one may be used.

use std::path::Path;

use kiln_fs::client::control;
use kiln_fs::core::quota::{BLOCK_BYTES, QuotaKind, SetLimits, SetQuota};
use kiln_types::ByteSize;

use super::options::split;
use super::quota::{id_of, kind_of, secs_of};
use super::{Done, Fail, attribute, mounts};

/// What was asked for: values as they were written.
#[derive(Debug, Default)]
struct Asked {
    grace: bool,
    kind: Option<QuotaKind>,
    whose: Option<String>,
    block_soft: Option<String>,
    block_hard: Option<String>,
    inode_soft: Option<String>,
    inode_hard: Option<String>,
    mount: Option<String>,
}

pub(super) fn setquota(words: &[String]) -> Done {
    let asked = Asked::parse(words)?;
    let (kind, set) = asked.set()?;
    let mount = asked.mount.as_deref().ok_or_else(|| Fail::usage("a mount is needed"))?;
    mounts::of(Path::new(mount))?;
    attribute::set(Path::new(mount), control::QUOTA, &(kind, set))
}

impl Asked {
    fn parse(words: &[String]) -> Result<Asked, Fail> {
        let mut asked = Asked { grace: words.iter().any(|word| word == "-t"), ..Asked::default() };
        let mut words = words.iter().filter(|word| *word != "-t");
        while let Some(word) = words.next() {
            let Some((option, glued)) = split(word) else {
                asked.mount = Some(word.clone());
                continue;
            };
            let kind = option.chars().next().filter(|_| option.len() == 1).and_then(kind_of);
            asked.kind = kind.or(asked.kind);
            if kind.is_some() && asked.grace {
                continue;
            }
            let value = glued.map(str::to_owned).or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| Fail::usage(format!("option '{word}' needs a value")))?;
            if kind.is_some() {
                asked.whose = Some(value);
            } else {
                *asked.slot(option)? = Some(value);
            }
        }
        Ok(asked)
    }

    fn slot(&mut self, option: &str) -> Result<&mut Option<String>, Fail> {
        match option {
            "b" | "block-softlimit" | "block-grace" => Ok(&mut self.block_soft),
            "B" | "block-hardlimit" => Ok(&mut self.block_hard),
            "i" | "inode-softlimit" | "inode-grace" => Ok(&mut self.inode_soft),
            "I" | "inode-hardlimit" => Ok(&mut self.inode_hard),
            _ => Err(Fail::usage(format!("unrecognized option '-{option}'"))),
        }
    }

    fn set(&self) -> Result<(QuotaKind, SetQuota), Fail> {
        let kind = self.kind.ok_or_else(|| Fail::usage("one of -u, -g and -p is needed"))?;
        if self.grace {
            let (space_secs, inode_secs) =
                (read(self.block_soft.as_ref(), secs_of)?, read(self.inode_soft.as_ref(), secs_of)?);
            return Ok((kind, SetQuota::Grace { space_secs, inode_secs }));
        }
        let whose = self.whose.as_deref().ok_or_else(|| Fail::usage("a name or a number is needed"))?;
        let space = SetLimits {
            soft: read(self.block_soft.as_ref(), blocks_of)?,
            hard: read(self.block_hard.as_ref(), blocks_of)?,
        };
        let inodes = SetLimits {
            soft: read(self.inode_soft.as_ref(), count_of)?,
            hard: read(self.inode_hard.as_ref(), count_of)?,
        };
        if (space, inodes) == (SetLimits::default(), SetLimits::default()) {
            return Err(Fail::usage("at least one limit is needed"));
        }
        Ok((kind, SetQuota::Limits { id: id_of(kind, whose)?, space, inodes }))
    }
}

fn read(value: Option<&String>, parse: impl Fn(&str) -> Option<u64>) -> Result<Option<u64>, Fail> {
    let bad = |value: &String| Fail::usage(format!("invalid value '{value}'"));
    value.map(|value| parse(value).ok_or_else(|| bad(value))).transpose()
}

/// KiB without a unit; in units of 512 bytes.
fn blocks_of(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let bytes =
        if plain { text.parse::<u64>().ok()?.checked_mul(1024)? } else { text.parse::<ByteSize>().ok()?.0 };
    Some(bytes.div_ceil(BLOCK_BYTES))
}

fn count_of(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(line: &str) -> Result<(QuotaKind, SetQuota), Fail> {
        Asked::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())?.set()
    }

    #[test]
    fn limits_are_in_kib_or_have_a_unit() {
        let limits = |soft, hard| SetLimits { soft, hard };
        let expected = SetQuota::Limits {
            id: 1000,
            space: limits(Some(2), Some(4096)),
            inodes: limits(None, Some(2048)),
        };
        let long = "-u 1000 --block-softlimit 1 --block-hardlimit=2M --inode-hardlimit 2k /m";
        assert_eq!(set(long).unwrap(), (QuotaKind::User, expected));
        assert_eq!(set("-u 1000 -b 1 -B2M -I 2k /m").unwrap(), (QuotaKind::User, expected));
        let (kind, set) = set("-p 7 -i 0 /m").unwrap();
        assert_eq!(kind, QuotaKind::Project);
        assert_eq!(
            set,
            SetQuota::Limits { id: 7, space: SetLimits::default(), inodes: limits(Some(0), None) }
        );
    }

    #[test]
    fn the_grace_is_of_all_of_a_kind() {
        let grace = |space_secs, inode_secs| SetQuota::Grace { space_secs, inode_secs };
        assert_eq!(set("-t -u -b 1w -i 60 /m").unwrap(), (QuotaKind::User, grace(Some(604_800), Some(60))));
        let long = set("-t -g --inode-grace 2h /m").unwrap();
        assert_eq!(long, (QuotaKind::Group, grace(None, Some(7200))));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for line in ["-b 1 /m", "-u 0 /m", "-u 0 -b x /m", "-u 0 -q 1 /m", "/m -u 0 -b", "-t -u -b 1y /m"] {
            assert!(matches!(set(line), Err(Fail::Usage(_))), "{line}");
        }
    }
}
