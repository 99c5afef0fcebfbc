//! The properties of pools by their names.

use std::collections::BTreeMap;

use kiln_pool::format::{ChecksumKind, Compression, Properties};

/// All of them, with their values.
pub(super) fn shown(properties: Properties) -> BTreeMap<String, String> {
    let compression = match properties.compression {
        Compression::None => "off",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    let checksum = match properties.checksum {
        ChecksumKind::Xxh3 => "xxh3",
        ChecksumKind::Blake3 => "blake3",
    };
    [("compression", compression), ("checksum", checksum)]
        .map(|(name, value)| (name.into(), value.into()))
        .into()
}

/// The same, with one of them set.
pub(super) fn with(mut properties: Properties, name: &str, value: &str) -> Result<Properties, String> {
    match name {
        "compression" => {
            properties.compression = match value {
                "off" => Compression::None,
                "on" | "lz4" => Compression::Lz4,
                "zstd" => Compression::Zstd,
                _ => return Err(format!("compression={value}: it is one of off, on, lz4 and zstd")),
            };
        }
        "checksum" => {
            properties.checksum = match value {
                "on" | "xxh3" => ChecksumKind::Xxh3,
                "blake3" => ChecksumKind::Blake3,
                "off" => return Err(
                    "checksum=off: what has no checksum cannot be mended; it is one of on, xxh3 and blake3"
                        .to_owned(),
                ),
                _ => return Err(format!("checksum={value}: it is one of on, xxh3 and blake3")),
            };
        }
        _ => return Err(format!("there is no property '{name}'; there are compression and checksum")),
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_and_shown() {
        let set =
            with(Properties::default(), "compression", "on").and_then(|set| with(set, "checksum", "blake3"));
        let set = set.expect("both are there");
        let pairs = [("compression", "lz4"), ("checksum", "blake3")];
        assert_eq!(shown(set), pairs.map(|(name, value)| (name.into(), value.into())).into());
        for (name, value) in [("compression", "gzip"), ("checksum", "off"), ("dedup", "on")] {
            let refused = with(Properties::default(), name, value).expect_err("there is no such thing");
            assert!(refused.contains(name), "{refused}");
        }
    }
}
