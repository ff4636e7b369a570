//! The allocator of every program here. The library leaves the choice to its user, who is well advised to choose alike: each
//! tensor is a large block, and the system's allocator gives large blocks back at once, to take a page fault for every 4 KB
//! of the next.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps all memory that was freed for the next tensor. Without this, what lies idle for 10 ms goes back to the system, which
/// happens many times in a training step and costs a tenth of its time.
#[allow(dead_code, reason = "programs that answer one question have no use for it")]
pub fn keep_freed_memory() {
    /// `mi_option_purge_delay` in mimalloc.h, the same in versions 2 and 3; -1 is never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets an option of the allocator, which it reads atomically.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
