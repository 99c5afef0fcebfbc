//! Reading and writing the virtual attributes of a mount.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_fs::client::control;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Fail;

/// The longest value that the kernel lets through, in bytes (`XATTR_SIZE_MAX`).
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The value of an attribute of what is at `path`, a symbolic link itself and not what it leads to.
pub(super) fn get_raw(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name.as_bytes())?);
    let mut value = vec![0; VALUE_BYTES_MAX];
    let len = lgetxattr(&path, &name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

/// The value of an attribute, decoded.
pub(super) fn get<T: DeserializeOwned>(path: &Path, name: &str) -> Result<T, Fail> {
    let value = get_raw(path, name).map_err(|error| explain(path, &error))?;
    control::decode(&value).ok_or_else(|| {
        Fail::failed(format!(
            "'{}': its client is of another version of Kiln; mount it again",
            path.display()
        ))
    })
}

/// Sets an attribute of what is at `path`.
pub(super) fn set<T: Serialize>(path: &Path, name: &str, value: &T) -> Result<(), Fail> {
    set_raw(path, name, &control::encode(value)).map_err(|error| explain(path, &error))
}

/// Sets an attribute to a value that is encoded.
pub(super) fn set_raw(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name.as_bytes())?);
    lsetxattr(&path, &name, value)
}

/// What went wrong, for a person.
pub(super) fn explain(path: &Path, error: &io::Error) -> Fail {
    match error.raw_os_error() {
        // What a filesystem that is none of ours answers.
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Fail::failed(format!(
            "'{}' is not on a filesystem of Kiln, or is of a kind that has no layout",
            path.display()
        )),
        _ => Fail::at(path, error),
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[expect(unsafe_code, reason = "lgetxattr(2) has no wrapper in nix")]
fn lgetxattr(path: &CString, name: &CString, value: &mut [u8]) -> io::Result<usize> {
    // SAFETY: both names end with a NUL, and the value's pointer and length are those of a slice that nobody else has.
    let len =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "lsetxattr(2) has no wrapper in nix")]
fn lsetxattr(path: &CString, name: &CString, value: &[u8]) -> io::Result<()> {
    // SAFETY: both names end with a NUL, and the value's pointer and length are those of a slice.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
