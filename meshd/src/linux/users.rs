//! The name of a user by its number, as the machine's own name services tell it (getpwuid(3)): they
//! may ask a directory on the network, so that answers are kept for a while.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer counts.
const COUNTS_FOR: Duration = Duration::from_secs(60);
/// Users that are known at once.
const USERS_MAX: usize = 4096;
/// Bytes for the texts of an entry: more than any sensible one has.
const ENTRY_BYTES: usize = 16 << 10;

type Answer = (Option<Arc<str>>, Instant);

/// The users that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Users {
    known: Mutex<BTreeMap<u32, Answer>>,
}

impl Users {
    /// Returns the name of a user, or that it has none.
    pub(crate) fn name_of(&self, uid: u32) -> Option<Arc<str>> {
        let now = Instant::now();
        if let Some((name, at)) = self.lock().get(&uid)
            && now.duration_since(*at) < COUNTS_FOR
        {
            return name.clone();
        }
        let name: Option<Arc<str>> = look_up(uid).map(Into::into);
        let mut known = self.lock();
        if known.len() >= USERS_MAX {
            known.clear();
        }
        known.insert(uid, (name.clone(), now));
        name
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Answer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look_up(uid: u32) -> Option<String> {
    let mut texts = vec![0; ENTRY_BYTES];
    // SAFETY: all zeros are a valid `passwd`: numbers and null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = ptr::null_mut();
    // SAFETY: entry, texts and found live through the call, and the length is that of texts
    // (getpwuid_r(3)).
    let failed = unsafe {
        libc::getpwuid_r(
            uid,
            &raw mut entry,
            texts.as_mut_ptr(),
            texts.len(),
            &raw mut found,
        )
    };
    if failed != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: an entry that was found has a name that ends with a zero, in texts, which still live.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_name_and_nobody_has_none() {
        let users = Users::default();
        assert_eq!(users.name_of(0).as_deref(), Some("root"));
        assert_eq!(users.name_of(0).as_deref(), Some("root"));
        assert_eq!(users.name_of(u32::MAX - 7), None);
        assert_eq!(users.lock().len(), 2);
    }
}
