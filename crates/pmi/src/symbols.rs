//! The 18 C functions of PMI-1 that Open MPI's flux component looks up with `dlsym`.
//!
//! Each checks its pointers, locks the one conversation of the process, and turns the outcome into a PMI return code.
#![expect(unsafe_code, reason = "a C interface: exported symbols and the caller's pointers")]
#![expect(
    clippy::missing_safety_doc,
    reason = "the contract of every function is that of the C header pmi.h"
)]

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client::{Client, ClientError};
use crate::wire::{KEY_BYTES_MAX, KVSNAME_BYTES_MAX, VALUE_BYTES_MAX};

const PMI_SUCCESS: c_int = 0;
const PMI_FAIL: c_int = -1;
const PMI_ERR_INIT: c_int = 1;
const PMI_ERR_INVALID_ARG: c_int = 3;
const PMI_ERR_INVALID_KEY: c_int = 4;
const PMI_ERR_INVALID_LENGTH: c_int = 8;
const PMI_ERR_INVALID_SIZE: c_int = 13;

static CONVERSATION: Mutex<Option<Client>> = Mutex::new(None);

fn conversation() -> MutexGuard<'static, Option<Client>> {
    CONVERSATION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `ask` on the open conversation; [`PMI_ERR_INIT`] when there is none.
fn with(ask: impl FnOnce(&mut Client) -> Result<c_int, ClientError>) -> c_int {
    match conversation().as_mut() {
        None => PMI_ERR_INIT,
        Some(client) => ask(client).unwrap_or(PMI_FAIL),
    }
}

/// Writes a number where the caller wants it.
///
/// # Safety
/// `out` is null or points to a writable int.
unsafe fn give(out: *mut c_int, value: impl TryInto<c_int>) -> c_int {
    if out.is_null() {
        return PMI_ERR_INVALID_ARG;
    }
    let Ok(value) = value.try_into() else { return PMI_FAIL };
    // SAFETY: not null, and writable by the contract of this function.
    unsafe { out.write(value) };
    PMI_SUCCESS
}

/// Writes a text with its terminating zero into the caller's buffer.
///
/// # Safety
/// `out` is null or points to `length` writable bytes.
unsafe fn give_text(out: *mut c_char, length: c_int, text: &str) -> c_int {
    let Ok(length) = usize::try_from(length) else { return PMI_ERR_INVALID_LENGTH };
    if out.is_null() {
        return PMI_ERR_INVALID_ARG;
    }
    if text.len() >= length {
        return PMI_ERR_INVALID_LENGTH;
    }
    // SAFETY: the text and its zero fit in the `length` writable bytes; the source is ours and cannot overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), out, text.len());
        out.add(text.len()).write(0);
    }
    PMI_SUCCESS
}

/// The caller's string, which must be one line of UTF-8.
///
/// # Safety
/// `text` is null or points to a string that ends with a zero and outlives the call.
unsafe fn take_text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and ends with a zero by the contract of this function.
    let text = unsafe { CStr::from_ptr(text) }.to_str().ok()?;
    (!text.contains('\n')).then_some(text)
}

/// Opens the conversation; tells whether the task was spawned by another, which it never is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Init(spawned: *mut c_int) -> c_int {
    let mut conversation = conversation();
    if conversation.is_none() {
        match Client::from_environment() {
            Ok(client) => *conversation = Some(client),
            Err(_) => return PMI_FAIL,
        }
    }
    // SAFETY: the caller passes a writable int (pmi.h).
    unsafe { give(spawned, 0) }
}

/// Tells whether the conversation is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Initialized(initialized: *mut c_int) -> c_int {
    let open = i32::from(conversation().is_some());
    // SAFETY: the caller passes a writable int (pmi.h).
    unsafe { give(initialized, open) }
}

/// Ends the conversation.
#[unsafe(no_mangle)]
pub extern "C" fn PMI_Finalize() -> c_int {
    match conversation().take() {
        None => PMI_ERR_INIT,
        Some(client) => client.finalize().map_or(PMI_FAIL, |()| PMI_SUCCESS),
    }
}

/// Ends the whole job and this process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Abort(exit_code: c_int, message: *const c_char) -> c_int {
    // SAFETY: the caller passes null or a C string (pmi.h).
    if let Some(message) = unsafe { take_text(message) } {
        eprintln!("PMI_Abort: {message}");
    }
    with(|client| client.abort(exit_code).map(|()| PMI_SUCCESS));
    std::process::exit(exit_code)
}

/// This task's rank.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_rank(rank: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|client| Ok(unsafe { give(rank, client.rank()) }))
}

/// Number of tasks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_size(size: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|client| Ok(unsafe { give(size, client.size()) }))
}

/// Number of tasks that may ever be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_universe_size(size: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|client| client.universe_size().map(|found| unsafe { give(size, found) }))
}

/// Number of the application.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_appnum(appnum: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|client| client.appnum().map(|found| unsafe { give(appnum, found) }))
}

/// Number of tasks on this node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_clique_size(size: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|client| client.clique().map(|ranks| unsafe { give(size, ranks.len()) }))
}

/// Ranks of the tasks on this node; `length` must be at least their number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_clique_ranks(ranks: *mut c_int, length: c_int) -> c_int {
    with(|client| {
        let clique = client.clique()?;
        if ranks.is_null() {
            return Ok(PMI_ERR_INVALID_ARG);
        }
        if usize::try_from(length).is_ok_and(|length| length < clique.len()) || length < 0 {
            return Ok(PMI_ERR_INVALID_SIZE);
        }
        for (at, rank) in clique.into_iter().enumerate() {
            // SAFETY: not null, and `at` is below `length`, the number of ints the caller passes (pmi.h).
            unsafe { ranks.add(at).write(rank as c_int) };
        }
        Ok(PMI_SUCCESS)
    })
}

/// Name of the job's key-value space.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_my_name(name: *mut c_char, length: c_int) -> c_int {
    // SAFETY: the caller passes `length` writable bytes (pmi.h).
    with(|client| Ok(unsafe { give_text(name, length, client.kvsname()) }))
}

/// Longest name, with its zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_name_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|_| Ok(unsafe { give(length, KVSNAME_BYTES_MAX) }))
}

/// Longest key, with its zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_key_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|_| Ok(unsafe { give(length, KEY_BYTES_MAX) }))
}

/// Longest value, with its zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get_value_length_max(length: *mut c_int) -> c_int {
    // SAFETY: the caller passes a writable int (pmi.h).
    with(|_| Ok(unsafe { give(length, VALUE_BYTES_MAX) }))
}

/// Publishes a pair.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Put(
    kvsname: *const c_char,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: the caller passes C strings (pmi.h).
    let words = unsafe { (take_text(kvsname), take_text(key), take_text(value)) };
    let (Some(kvsname), Some(key), Some(value)) = words else { return PMI_ERR_INVALID_ARG };
    with(|client| client.put(kvsname, key, value).map(|()| PMI_SUCCESS))
}

/// Makes pairs ready for the next barrier; each put already did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Commit(kvsname: *const c_char) -> c_int {
    if kvsname.is_null() {
        return PMI_ERR_INVALID_ARG;
    }
    with(|_| Ok(PMI_SUCCESS))
}

/// Reads a pair into the caller's buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get(
    kvsname: *const c_char,
    key: *const c_char,
    value: *mut c_char,
    length: c_int,
) -> c_int {
    // SAFETY: the caller passes C strings (pmi.h).
    let words = unsafe { (take_text(kvsname), take_text(key)) };
    let (Some(kvsname), Some(key)) = words else { return PMI_ERR_INVALID_ARG };
    with(|client| {
        let Some(found) = client.get(kvsname, key)? else { return Ok(PMI_ERR_INVALID_KEY) };
        // SAFETY: the caller passes `length` writable bytes (pmi.h).
        Ok(unsafe { give_text(value, length, &found) })
    })
}

/// Waits until every task has called it.
#[unsafe(no_mangle)]
pub extern "C" fn PMI_Barrier() -> c_int {
    with(|client| client.barrier().map(|()| PMI_SUCCESS))
}
