//! Linux error numbers as the filesystem answers them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An errno. The numbers are those of Linux on every platform that Kiln runs on; on the wire they are what they are here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident)+) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`, see errno(3)")]
                pub const $name: Errno = Errno(libc::$name);
            )+

            /// The symbol, where it is one that this filesystem answers.
            pub fn name(self) -> &'static str {
                match self {
                    $(Errno::$name => stringify!($name),)+
                    _ => "an errno",
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO EBADF EAGAIN EACCES EBUSY EEXIST EXDEV ENOTDIR EISDIR EINVAL EFBIG ENOSPC EROFS
    EMLINK ERANGE EDEADLK ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP ENODATA EOVERFLOW EOPNOTSUPP ESTALE EDQUOT ETIMEDOUT
    ENOTCONN E2BIG ENODEV EPROTO ENOLCK ENFILE
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}

impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Errno {
        error.raw_os_error().map_or(Errno::EIO, Errno)
    }
}
