"""A tree of files, directories and links in memory: each operation answers as the system call does, or says its errno."""

import errno
import os
from dataclasses import dataclass, field

from syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE


@dataclass(eq=False)
class Node:
    """A file, directory or symbolic link."""

    kind: str
    mode: int
    data: bytearray = field(default_factory=bytearray)
    target: str = ""
    children: dict = field(default_factory=dict)
    xattrs: dict = field(default_factory=dict)
    links: int = 1

    def resize(self, size):
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))

    def write(self, offset, data):
        if not data:
            return  # a write of nothing does not make the file longer
        self.resize(max(len(self.data), offset + len(data)))
        self.data[offset : offset + len(data)] = data


class Refused(Exception):
    """The errno the model gives."""

    def __init__(self, number):
        self.number = number


class Model:
    """The tree as it should be. Each operation answers as the call does, or raises Refused."""

    def __init__(self):
        self.root = Node("dir", 0o755)

    def find(self, path):
        node = self.root
        for name in path:
            if node.kind != "dir":
                raise Refused(errno.ENOTDIR)
            if name not in node.children:
                raise Refused(errno.ENOENT)
            node = node.children[name]
        return node

    def parent(self, path):
        parent = self.find(path[:-1])
        if parent.kind != "dir":
            raise Refused(errno.ENOTDIR)
        return parent

    def leads_through_a_link(self, path):
        node = self.root
        for name in path[:-1]:
            node = node.children.get(name)
            if node is None:
                return False
            if node.kind == "link":
                return True
        return False

    def add(self, path, node):
        parent = self.parent(path)
        if path[-1] in parent.children:
            raise Refused(errno.EEXIST)
        parent.children[path[-1]] = node
        return node

    def unlink(self, path):
        node = self.find(path)
        if node.kind == "dir":
            raise Refused(errno.EISDIR)
        del self.parent(path).children[path[-1]]
        node.links -= 1

    def rmdir(self, path):
        node = self.find(path)
        if node.kind != "dir":
            raise Refused(errno.ENOTDIR)
        if node.children:
            raise Refused(errno.ENOTEMPTY)
        del self.parent(path).children[path[-1]]

    def link(self, source, target):
        node = self.find(source)
        if target[-1] in self.parent(target).children:
            raise Refused(errno.EEXIST)
        if node.kind == "dir":
            raise Refused(errno.EPERM)
        self.parent(target).children[target[-1]] = node
        node.links += 1

    def rename(self, source, target, flags):
        """The order of checks is the kernel's (do_renameat2, vfs_rename)."""
        source_parent, target_parent = self.parent(source), self.parent(target)
        node = self.find(source)
        old = target_parent.children.get(target[-1])
        if flags & RENAME_NOREPLACE and old is not None:
            raise Refused(errno.EEXIST)
        if flags & RENAME_EXCHANGE and old is None:
            raise Refused(errno.ENOENT)
        if len(target) > len(source) and target[: len(source)] == source:
            raise Refused(errno.EINVAL)
        if len(source) > len(target) and source[: len(target)] == target:
            raise Refused(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)
        if old is node:
            return
        if flags & RENAME_EXCHANGE:
            source_parent.children[source[-1]], target_parent.children[target[-1]] = old, node
            return
        if old is not None:
            self.check_replaces(node, old)
            old.links -= 1
        del source_parent.children[source[-1]]
        target_parent.children[target[-1]] = node

    @staticmethod
    def check_replaces(node, old):
        if node.kind == "dir" and old.kind != "dir":
            raise Refused(errno.ENOTDIR)
        if node.kind != "dir" and old.kind == "dir":
            raise Refused(errno.EISDIR)
        if old.children:
            raise Refused(errno.ENOTEMPTY)

    def file(self, path, flags=0):
        """A file to open: links are not followed (O_NOFOLLOW)."""
        if flags & os.O_CREAT:
            parent = self.parent(path)
            if path[-1] not in parent.children:
                parent.children[path[-1]] = Node("file", 0o644)
                return parent.children[path[-1]]
            if flags & os.O_EXCL:
                raise Refused(errno.EEXIST)
        node = self.find(path)
        if node.kind != "file":
            raise Refused(errno.ELOOP if node.kind == "link" else errno.EISDIR)
        return node
