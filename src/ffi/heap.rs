//! How the C library's heap treats the memory that tensors leave.

/// Makes the process keep the memory that tensors free, instead of giving it back to the system each time.
///
/// A training step makes and frees the same large tensors over and over. By default glibc maps each afresh, and
/// the system hands out zeroed pages one by one, which takes about a tenth of a convolutional network's step
/// and a third of a small one's. Kept memory is used again as it is. The price: what the process once needed
/// it keeps, and memory that other code frees stays with it, too. It is a setting of the whole process, so it
/// is yours to make, best as the first line of `main`.
///
/// Returns whether the setting was made: false where the C library is not glibc, with nothing changed.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_TOP_PAD: c_int = -2;
        const M_MMAP_MAX: c_int = -4;
        // SAFETY: glibc's mallopt takes any parameter and value, and says by 0 that it refuses.
        unsafe {
            mallopt(M_MMAP_MAX, 0) == 1
                && mallopt(M_TRIM_THRESHOLD, c_int::MAX) == 1
                && mallopt(M_TOP_PAD, 64 << 20) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
