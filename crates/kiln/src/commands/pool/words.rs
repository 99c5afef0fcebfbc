//! What is named on the command line of `kiln pool`.

use std::path::{Path, absolute};

use anyhow::Context as _;
use kiln_fs::wire::pool::NewVdev;

use super::super::Usage;

/// A path as the node is told it: its working directory is another.
pub(super) fn shown(path: &Path) -> anyhow::Result<String> {
    let path = absolute(path).with_context(|| format!("{} is no path", path.display()))?;
    Ok(path.display().to_string())
}

/// `NAME=VALUE`.
pub(super) fn parse_property(word: &str) -> anyhow::Result<(String, String)> {
    let pair = word.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair
        .ok_or_else(|| Usage(format!("'{word}' is no property; write NAME=VALUE, as in compression=lz4")))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Vdevs and spares, as `zpool create` has them.
pub(super) fn parse_vdevs(words: &[String]) -> anyhow::Result<(Vec<NewVdev>, Vec<String>)> {
    let mut vdevs: Vec<NewVdev> = Vec::new();
    let mut spares = Vec::new();
    let mut are_spares = false;
    // Disks belong to the vdev that was named last, if one was.
    let mut named = false;
    for word in words {
        let parity = match word.as_str() {
            "mirror" => Some(0),
            "raidz" | "raidz1" => Some(1),
            "raidz2" => Some(2),
            "raidz3" => Some(3),
            "spare" => {
                are_spares = true;
                continue;
            }
            "log" | "cache" | "special" | "dedup" => {
                return Err(Usage(format!(
                    "{word}: pools have no such vdevs; they have disks, mirror, raidz1 to raidz3, and spare"
                ))
                .into());
            }
            _ => None,
        };
        if let Some(parity) = parity {
            vdevs.push(NewVdev { parity, disks: Vec::new() });
            (named, are_spares) = (true, false);
            continue;
        }
        let disk = shown(Path::new(word))?;
        if are_spares {
            spares.push(disk);
            continue;
        }
        match vdevs.last_mut().filter(|_| named) {
            Some(vdev) => vdev.disks.push(disk),
            None => vdevs.push(NewVdev { parity: 0, disks: vec![disk] }),
        }
    }
    match vdevs.iter().find(|vdev| vdev.disks.len() <= usize::from(vdev.parity)) {
        Some(NewVdev { parity: 0, .. }) => Err(Usage("mirror: name the disks behind it".to_owned()).into()),
        Some(vdev) => {
            let (parity, least) = (vdev.parity, vdev.parity + 1);
            Err(Usage(format!(
                "raidz{parity} needs at least {least} disks, and {} are named",
                vdev.disks.len()
            ))
            .into())
        }
        None => Ok((vdevs, spares)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn vdevs_are_named_as_for_zpool() {
        let all = words("/a /b raidz2 /c /d /e spare /x /y mirror /f /g");
        let (parsed, spares) = parse_vdevs(&all).expect("zpool takes it");
        assert_eq!(spares, ["/x", "/y"]);
        let shape: Vec<(u8, usize)> = parsed.iter().map(|vdev| (vdev.parity, vdev.disks.len())).collect();
        assert_eq!(shape, [(0, 1), (0, 1), (2, 3), (0, 2)]);
        let (parsed, _) = parse_vdevs(&words("raidz /a /b")).expect("zpool takes it");
        assert_eq!(parsed[0].parity, 1);
        for bad in ["raidz2 /a /b", "mirror", "log /a", "mirror raidz1 /a /b"] {
            assert!(parse_vdevs(&words(bad)).is_err(), "{bad}");
        }
    }
}
