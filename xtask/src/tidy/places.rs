//! The project speaks of itself alone: no paths of somebody's machine, no hosts of package registries.

use super::{Finding, Tree, tree::numbered};

/// Put together here so that this file does not find itself.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/."),
    concat!("/home/us", "er/"),
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("npmjs", ".org"),
    concat!("deb.debian", ".org"),
];
/// The line that cargo writes for each package.
const LOCK_SOURCE: &str = "source = \"registry+";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let lines =
        tree.files().flat_map(|(path, text)| numbered(text).map(move |(number, line)| (path, number, line)));
    lines
        .filter(|(path, _, line)| !(*path == "Cargo.lock" && line.starts_with(LOCK_SOURCE)))
        .flat_map(|(path, number, line)| {
            PLACES.iter().filter(move |place| line.contains(**place)).map(move |place| (path, number, place))
        })
        .map(|(path, number, place)| {
            Finding::error(
                path,
                number,
                format!("names {place}"),
                "use a relative path, or leave the place out",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_the_lock_file_excepted() {
        let lock = format!("{LOCK_SOURCE}https://x/{}-index\"\n", PLACES[3]);
        let tree = Tree::of(&[("Cargo.lock", &lock), ("a.md", &format!("see\n{}x\n", PLACES[0]))]);
        let found: Vec<_> = check(&tree).iter().map(|finding| (finding.path.clone(), finding.line)).collect();
        assert_eq!(found, [("a.md".to_owned(), 2)]);
    }
}
