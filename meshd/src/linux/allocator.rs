//! What the C library's allocator gives back to the kernel, and when. By itself it gives back what is
//! free at its end above 128 KiB, after every large answer, and has each page of it zeroed again for
//! the next.

#![allow(unsafe_code)]

use std::ffi::c_int;

/// Free memory at the end of a thread's part that is kept.
const KEPT_BYTES: c_int = 1 << 20;
/// Above that each piece is the kernel's own, and given back at once.
const PIECE_BYTES: c_int = 1 << 20;

/// Has threads keep a little free memory. To be called before there are any.
pub fn keep_a_little() {
    for (parameter, bytes) in [
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
        (libc::M_MMAP_THRESHOLD, PIECE_BYTES),
    ] {
        // SAFETY: it takes two numbers and touches no memory of ours; nothing else allocates yet.
        let is_known = unsafe { libc::mallopt(parameter, bytes) };
        if is_known == 0 {
            tracing::debug!(parameter, "the allocator does not know this parameter");
        }
    }
}
