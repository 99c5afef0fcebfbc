//! `PMI_process_mapping`: which ranks share a node (RFC 13), as `(vector,(first node,nodes,ranks per node),...)`.

use std::fmt::Write as _;

/// The key under which the mapping is published.
pub const KEY: &str = "PMI_process_mapping";
/// Most ranks that a mapping is followed for.
const RANKS_MAX: usize = 1 << 20;

/// One run of equal nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the first node.
    pub first: u32,
    /// How many nodes.
    pub nodes: u32,
    /// Ranks on each.
    pub ranks: u32,
}

/// Reads a mapping; `None` when it is none.
pub fn parse(text: &str) -> Option<Vec<Block>> {
    let inner = text.trim().strip_prefix("(vector")?.strip_suffix(')')?;
    let mut blocks = Vec::new();
    for part in inner.split('(').skip(1) {
        let mut numbers = part.split(')').next()?.split(',').map(|number| number.trim().parse().ok());
        let mut next = || numbers.next().flatten();
        blocks.push(Block { first: next()?, nodes: next()?, ranks: next()? });
    }
    Some(blocks)
}

/// The text for `blocks`.
pub fn format(blocks: &[Block]) -> String {
    let mut text = String::from("(vector");
    for Block { first, nodes, ranks } in blocks {
        // Writing to a string cannot fail.
        let _ = write!(text, ",({first},{nodes},{ranks})");
    }
    text.push(')');
    text
}

/// The node of each rank, in rank order: the vector is repeated until `size` ranks have one.
pub fn nodes(blocks: &[Block], size: usize) -> Vec<u32> {
    let size = size.min(RANKS_MAX);
    let mut nodes = Vec::with_capacity(size);
    let ranks_per_round: u64 =
        blocks.iter().map(|block| u64::from(block.nodes) * u64::from(block.ranks)).sum();
    if ranks_per_round == 0 {
        return nodes;
    }
    while nodes.len() < size {
        let round = blocks.iter().filter(|block| block.ranks > 0).flat_map(|block| {
            (0..block.nodes)
                .flat_map(move |node| (0..block.ranks).map(move |_| block.first.saturating_add(node)))
        });
        let missing = size - nodes.len();
        nodes.extend(round.take(missing));
    }
    nodes
}

/// The mapping for tasks whose nodes are `nodes`, in rank order.
pub fn blocks_of(nodes: &[u32]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for run in nodes.chunk_by(|left, right| left == right) {
        let (node, ranks) = (run[0], run.len() as u32);
        match blocks.last_mut() {
            Some(block) if block.ranks == ranks && block.first + block.nodes == node => block.nodes += 1,
            _ => blocks.push(Block { first: node, nodes: 1, ranks }),
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_and_cyclic_layouts() {
        let block = blocks_of(&[0, 0, 1, 1, 2]);
        assert_eq!(format(&block), "(vector,(0,2,2),(2,1,1))");
        assert_eq!(nodes(&block, 5), [0, 0, 1, 1, 2]);
        let cyclic = blocks_of(&[0, 1, 0, 1]);
        assert_eq!(format(&cyclic), "(vector,(0,2,1),(0,2,1))");
        assert_eq!(nodes(&parse("(vector,(0,2,1))").expect("a mapping"), 4), [0, 1, 0, 1]);
    }

    #[test]
    fn text_reads_back() {
        let blocks = [Block { first: 0, nodes: 4, ranks: 2 }, Block { first: 4, nodes: 1, ranks: 1 }];
        assert_eq!(parse(&format(&blocks)).expect("a mapping"), blocks);
        assert_eq!(parse("(vector)"), Some(Vec::new()));
    }

    #[test]
    fn nonsense_is_no_mapping_and_ends() {
        for text in ["", "vector", "(vector,(1,2))", "(vector,(a,b,c))", "(vector,(0,2,x))"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(nodes(&[Block { first: 0, nodes: u32::MAX, ranks: 0 }], 10).is_empty());
        assert_eq!(nodes(&[Block { first: u32::MAX, nodes: u32::MAX, ranks: 1 }], 3).len(), 3);
    }
}
