//! The trie of a topic exchange: words between dots, `*` for one word, `#` for any number.

use std::collections::HashMap;

/// Patterns with a value each; several values may share a pattern.
#[derive(Debug)]
pub(super) struct Trie<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    words: HashMap<Box<[u8]>, Node<T>>,
    star: Option<Box<Node<T>>>,
    hash: Option<Box<Node<T>>>,
    values: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { words: HashMap::new(), star: None, hash: None, values: Vec::new() }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    // An empty key is no word at all: `#` matches it and `*` does not.
    if key.is_empty() { Vec::new() } else { key.split(|&octet| octet == b'.').collect() }
}

impl<T: PartialEq> Trie<T> {
    pub(super) fn insert(&mut self, pattern: &[u8], value: T) {
        let mut node = &mut self.root;
        for word in words(pattern) {
            node = match word {
                b"*" => node.star.get_or_insert_default(),
                b"#" => node.hash.get_or_insert_default(),
                _ => node.words.entry(word.into()).or_default(),
            };
        }
        node.values.push(value);
    }

    /// Removes one value at `pattern`, and the nodes that are no longer needed.
    pub(super) fn remove(&mut self, pattern: &[u8], value: &T) {
        self.root.remove(&words(pattern), value);
    }

    /// Calls `found` for every value whose pattern matches; a value may come more than once.
    pub(super) fn matches<'t>(&'t self, key: &[u8], found: &mut impl FnMut(&'t T)) {
        self.root.matches(&words(key), found);
    }
}

impl<T: PartialEq> Node<T> {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.words.is_empty() && self.star.is_none() && self.hash.is_none()
    }

    fn remove(&mut self, words: &[&[u8]], value: &T) {
        let Some((&word, rest)) = words.split_first() else {
            if let Some(at) = self.values.iter().position(|candidate| candidate == value) {
                self.values.swap_remove(at);
            }
            return;
        };
        match word {
            b"*" => remove_child(&mut self.star, rest, value),
            b"#" => remove_child(&mut self.hash, rest, value),
            _ => {
                if let Some(child) = self.words.get_mut(word) {
                    child.remove(rest, value);
                    if child.is_empty() {
                        self.words.remove(word);
                    }
                }
            }
        }
    }

    fn matches<'t>(&'t self, words: &[&[u8]], found: &mut impl FnMut(&'t T)) {
        if let Some(hash) = &self.hash {
            hash.after_hash(words, found);
        }
        let Some((&word, rest)) = words.split_first() else {
            self.values.iter().for_each(found);
            return;
        };
        if let Some(star) = &self.star {
            star.matches(rest, found);
        }
        if let Some(child) = self.words.get(word) {
            child.matches(rest, found);
        }
    }

    /// This node stands after a `#`, which takes 0 to all of `words`.
    fn after_hash<'t>(&'t self, words: &[&[u8]], found: &mut impl FnMut(&'t T)) {
        if self.words.is_empty() && self.star.is_none() && self.hash.is_none() {
            self.values.iter().for_each(found);
            return;
        }
        for taken in 0..=words.len() {
            self.matches(&words[taken..], found);
        }
    }
}

fn remove_child<T: PartialEq>(child: &mut Option<Box<Node<T>>>, rest: &[&[u8]], value: &T) {
    if let Some(node) = child {
        node.remove(rest, value);
        if node.is_empty() {
            *child = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(patterns: &[&str], key: &str) -> Vec<String> {
        let mut trie = Trie::default();
        for &pattern in patterns {
            trie.insert(pattern.as_bytes(), pattern.to_owned());
        }
        let mut found = Vec::new();
        trie.matches(key.as_bytes(), &mut |pattern| found.push(pattern.clone()));
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn words_stars_and_hashes() {
        let all = ["*.orange.*", "*.*.rabbit", "lazy.#", "#", "a.#.z", ""];
        assert_eq!(matching(&all, "quick.orange.rabbit"), ["#", "*.*.rabbit", "*.orange.*"]);
        assert_eq!(matching(&all, "lazy"), ["#", "lazy.#"]);
        assert_eq!(matching(&all, "a.z"), ["#", "a.#.z"]);
        assert_eq!(matching(&all, "a.b.c.z"), ["#", "a.#.z"]);
        assert_eq!(matching(&all, ""), ["", "#"]);
        assert_eq!(matching(&all, "orange"), ["#"]);
    }

    #[test]
    fn removing_the_last_value_frees_its_nodes() {
        let mut trie = Trie::default();
        trie.insert(b"a.*.#", 1);
        trie.insert(b"a.*.#", 2);
        trie.remove(b"a.*.#", &1);
        let mut found = Vec::new();
        trie.matches(b"a.b", &mut |value| found.push(*value));
        assert_eq!(found, [2]);
        trie.remove(b"a.*.#", &2);
        assert!(trie.root.is_empty());
    }
}
