//! Which task runs on which node of its job (Flux RFC 34).

use kiln_types::IdSet;

/// `nodes` neighbouring nodes from `first` on have `tasks` tasks each, over and over, `repeat` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u32,
    nodes: u32,
    tasks: u32,
    repeat: u32,
}

/// The task map in RFC 34's JSON, `[[0,2,1,1]]`, given the tasks of each node in the job's order.
pub fn taskmap_json<'a>(nodes: impl IntoIterator<Item = &'a IdSet>) -> String {
    let blocks: Vec<String> = blocks(nodes)
        .iter()
        .map(|block| format!("[{},{},{},{}]", block.first, block.nodes, block.tasks, block.repeat))
        .collect();
    format!("[{}]", blocks.join(","))
}

fn blocks<'a>(nodes: impl IntoIterator<Item = &'a IdSet>) -> Vec<Block> {
    let mut runs: Vec<(u32, u32, u32)> = Vec::new();
    for (node, tasks) in (0..).zip(nodes) {
        runs.extend(tasks.ranges().map(|range| (*range.start(), *range.end(), node)));
    }
    runs.sort_unstable();
    let mut found: Vec<Block> = Vec::new();
    for (low, high, node) in runs {
        let tasks = high - low + 1;
        match found.last_mut() {
            Some(last) if last.tasks == tasks && last.first + last.nodes == node => last.nodes += 1,
            _ => found.push(Block { first: node, nodes: 1, tasks, repeat: 1 }),
        }
    }
    fold_repeats(found)
}

fn fold_repeats(blocks: Vec<Block>) -> Vec<Block> {
    let mut folded: Vec<Block> = Vec::new();
    for block in blocks {
        match folded.last_mut() {
            Some(last) if Block { repeat: 1, ..*last } == block => last.repeat += 1,
            _ => folded.push(block),
        }
    }
    folded
}

/// The hostfile-like form that PMI-1 programs know (RFC 13): `(vector,(0,2,1))`.
pub fn process_mapping<'a>(nodes: impl IntoIterator<Item = &'a IdSet>) -> String {
    let blocks: Vec<String> = blocks(nodes)
        .iter()
        .flat_map(|block| std::iter::repeat_n(block, block.repeat as usize))
        .map(|block| format!("({},{},{})", block.first, block.nodes, block.tasks))
        .collect();
    format!("(vector,{})", blocks.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(nodes: &[&str]) -> (String, String) {
        let sets: Vec<IdSet> = nodes.iter().map(|text| text.parse().unwrap()).collect();
        (taskmap_json(&sets), process_mapping(&sets))
    }

    #[test]
    fn one_block_when_nodes_are_alike() {
        assert_eq!(map(&["0"]).0, "[[0,1,1,1]]");
        assert_eq!(map(&["0-1", "2-3"]), ("[[0,2,2,1]]".into(), "(vector,(0,2,2))".into()));
    }

    #[test]
    fn blocks_when_nodes_differ() {
        assert_eq!(map(&["0-1", "2"]), ("[[0,1,2,1],[1,1,1,1]]".into(), "(vector,(0,1,2),(1,1,1))".into()));
    }

    #[test]
    fn cyclic_repeats() {
        assert_eq!(map(&["0,2", "1,3"]), ("[[0,2,1,2]]".into(), "(vector,(0,2,1),(0,2,1))".into()));
    }
}
