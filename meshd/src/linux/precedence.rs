//! Which of the threads that want a processor gets it first.

#![allow(unsafe_code)]

use std::io;

/// Lets the calling thread go before all ordinary ones, as little as can be before other real-time
/// ones; sched(7). What it starts is ordinary.
///
/// # Errors
/// The kernel does not let it: no `CAP_SYS_NICE` and no `RLIMIT_RTPRIO`, a seccomp filter, a control
/// group without real-time share.
pub(crate) fn go_ahead() -> io::Result<()> {
    const LOWEST: libc::c_int = 1;
    set_policy(libc::SCHED_RR, LOWEST)
}

/// Makes the calling thread an ordinary one.
///
/// # Errors
/// As [`go_ahead`]; a thread may always give up what it has.
pub(crate) fn go_along() -> io::Result<()> {
    set_policy(libc::SCHED_OTHER, 0)
}

fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    const CALLING_THREAD: libc::pid_t = 0;
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads one `sched_param` from where one is.
    let result = unsafe { libc::sched_setscheduler(CALLING_THREAD, policy, &raw const parameter) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether the calling thread goes before ordinary ones.
    pub(crate) fn is_ahead() -> bool {
        // SAFETY: it takes and gives numbers.
        let policy = unsafe { libc::sched_getscheduler(0) };
        policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_RR
    }

    #[test]
    fn a_thread_goes_ahead_alone_and_back_again() {
        if go_ahead().is_err() {
            assert!(!is_ahead());
            return;
        }
        assert!(is_ahead());
        let of_another = std::thread::spawn(is_ahead);
        assert!(!of_another.join().unwrap());
        go_along().unwrap();
        assert!(!is_ahead());
    }
}
