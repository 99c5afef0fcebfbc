//! Names of queues as names of directories, and names that the broker makes up.

use kiln_world::Rng;

use crate::wire::ShortStr;

/// File systems allow 255 octets; what is longer is cut and told apart by its hash.
const FILE_NAME_MAX: usize = 200;

/// A queue's or virtual host's name as the name of a directory.
///
/// Letters, digits, `-`, `_` and `.` (not in front) stand for themselves, all else is `%XX`. A name that gets longer
/// than 200 octets is cut there and continued with `~` and its FNV-1a hash.
pub(super) fn file_name(name: &ShortStr) -> String {
    let mut escaped = String::with_capacity(name.len());
    for (at, &octet) in name.as_bytes().iter().enumerate() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(char::from(octet)),
            b'.' if at > 0 => escaped.push('.'),
            _ => escaped.extend([b'%', hex(octet >> 4), hex(octet & 15)].map(char::from)),
        }
    }
    if escaped.is_empty() {
        return "%".to_owned();
    }
    if escaped.len() > FILE_NAME_MAX {
        escaped.truncate(FILE_NAME_MAX);
        let cut = format!("~{:016x}", fnv64(name.as_bytes()));
        escaped.push_str(&cut);
    }
    escaped
}

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit)]
}

/// FNV-1a, 64 bits: fixed for ever, because names on disk depend on it.
pub(super) fn fnv64(octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// A name that nobody can guess: `prefix` and 22 characters.
pub(super) fn random_name(rng: &dyn Rng, prefix: &str) -> ShortStr {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0; 22];
    rng.fill(&mut random);
    let mut name = prefix.to_owned();
    name.extend(random.iter().map(|octet| char::from(ALPHABET[usize::from(octet & 63)])));
    ShortStr::try_from(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_get_different_directories() {
        let long = |end: char| ShortStr::try_from(format!("{}{end}", "x".repeat(250))).unwrap();
        let names = [
            ShortStr::from_static("/"),
            ShortStr::from_static("a/b"),
            ShortStr::from_static("a%2Fb"),
            ShortStr::from_static("."),
            ShortStr::from_static(".."),
            ShortStr::default(),
            long('a'),
            long('b'),
        ];
        let files: std::collections::BTreeSet<String> = names.iter().map(file_name).collect();
        assert_eq!(files.len(), names.len(), "{files:?}");
        assert!(files.iter().all(|file| !file.contains('/') && !file.starts_with('.') && file.len() < 256));
    }
}
