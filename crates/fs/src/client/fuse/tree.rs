//! Several filesystems in one mount: that which is mounted, and its snapshots.
//!
//! The kernel knows an inode by its node number: the number of the filesystem above 48 bits of the inode's own. In an inode's own number
//! these bits name the MDT, of which there is one, 0.

use crate::core::Ino;

/// Bits of a node number that are the inode's own.
const INO_BITS: u32 = 48;

/// A filesystem of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tree(pub(crate) u16);

impl Tree {
    /// The one that is mounted.
    pub(crate) const MOUNTED: Tree = Tree(0);
    /// The directory of snapshots is a filesystem of its own.
    pub(crate) const SNAPSHOTS: Tree = Tree(u16::MAX);

    /// The number by which the kernel knows an inode.
    pub(crate) fn node(self, ino: Ino) -> u64 {
        u64::from(self.0) << INO_BITS | ino.0
    }

    /// The filesystem and the inode of a number that the kernel has.
    pub(crate) fn split(node: Ino) -> (Tree, Ino) {
        (Tree((node.0 >> INO_BITS) as u16), Ino(node.0 & ((1 << INO_BITS) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_apart_again() {
        for tree in [Tree::MOUNTED, Tree(1), Tree::SNAPSHOTS] {
            for ino in [Ino::ROOT, Ino((1 << INO_BITS) - 1)] {
                assert_eq!(Tree::split(Ino(tree.node(ino))), (tree, ino));
            }
        }
        assert_eq!(Tree::MOUNTED.node(Ino(77)), 77);
    }
}
