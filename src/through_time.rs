//! State that keeps its graph from step to step, for backpropagation through time.

use std::cell::Cell;

thread_local! {
    static THROUGH_TIME: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with modules on this thread that hand the graph of their state from step to step, and neurons that
/// keep no trace.
pub(crate) fn through_time<T>(body: impl FnOnce() -> T) -> T {
    /// Restores in a panic, too.
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            THROUGH_TIME.set(self.0);
        }
    }

    let _restore = Restore(THROUGH_TIME.replace(true));
    body()
}

pub(crate) fn is_through_time() -> bool {
    THROUGH_TIME.get()
}
