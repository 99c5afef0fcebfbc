"""System calls that Python's os module has no name for."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_ZERO_RANGE = 0x10

LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
LIBC.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
LIBC.linkat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
LIBC.getxattr.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
LIBC.getxattr.restype = ctypes.c_ssize_t
LIBC.listxattr.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
LIBC.listxattr.restype = ctypes.c_ssize_t


def checked(result):
    """The result of a call, or the error that errno says."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(source, target, flags):
    checked(LIBC.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags))


def link_open_file(descriptor, target):
    """Gives an open file a name, as open(2) shows it for O_TMPFILE."""
    source = f"/proc/self/fd/{descriptor}".encode()
    checked(LIBC.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(target), AT_SYMLINK_FOLLOW))


def fallocate(descriptor, mode, offset, length):
    checked(LIBC.fallocate(descriptor, mode, offset, length))


def getxattr_into(path, name, size):
    """getxattr(2) with a buffer of `size` bytes; 0 asks for the size."""
    buffer = ctypes.create_string_buffer(size) if size else None
    return checked(LIBC.getxattr(os.fsencode(path), name.encode(), buffer, size))


def listxattr_into(path, size):
    buffer = ctypes.create_string_buffer(size) if size else None
    return checked(LIBC.listxattr(os.fsencode(path), buffer, size))


def syncfs(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        checked(LIBC.syncfs(descriptor))
    finally:
        os.close(descriptor)


class Dirent(ctypes.Structure):
    """struct dirent64 of 64-bit Linux."""

    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


LIBC.opendir.argtypes, LIBC.opendir.restype = [ctypes.c_char_p], ctypes.c_void_p
LIBC.readdir.argtypes, LIBC.readdir.restype = [ctypes.c_void_p], ctypes.POINTER(Dirent)
LIBC.telldir.argtypes, LIBC.telldir.restype = [ctypes.c_void_p], ctypes.c_long
LIBC.seekdir.argtypes, LIBC.seekdir.restype = [ctypes.c_void_p, ctypes.c_long], None
LIBC.rewinddir.argtypes, LIBC.rewinddir.restype = [ctypes.c_void_p], None
LIBC.closedir.argtypes = [ctypes.c_void_p]


class DirectoryStream:
    """opendir(3) and what belongs to it, with positions."""

    def __init__(self, path):
        self.stream = LIBC.opendir(os.fsencode(path))
        if not self.stream:
            checked(-1)

    def read(self):
        """The next entry as (name, inode, type); None at the end."""
        ctypes.set_errno(0)
        entry = LIBC.readdir(self.stream)
        if not entry:
            checked(-1 if ctypes.get_errno() else 0)
            return None
        return entry.contents.name, entry.contents.ino, entry.contents.type

    def names(self):
        """The names from here on, with . and .. left out."""
        names = []
        while (entry := self.read()) is not None:
            if entry[0] not in (b".", b".."):
                names.append(entry[0])
        return names

    def tell(self):
        return LIBC.telldir(self.stream)

    def seek(self, position):
        LIBC.seekdir(self.stream, position)

    def rewind(self):
        LIBC.rewinddir(self.stream)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        LIBC.closedir(self.stream)
