//! Choices that end with a piece of code.

use std::cell::Cell;
use std::thread::LocalKey;

/// Does something when it goes out of scope, in a panic too.
pub(crate) struct AtEnd<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs `body` with `value` in a choice of this thread; the former one comes back after it.
pub(crate) fn scoped<C: 'static, T>(
    choice: &'static LocalKey<Cell<C>>,
    value: C,
    body: impl FnOnce() -> T,
) -> T {
    let mut former = Some(choice.replace(value));
    let _restore = AtEnd(|| former.take().into_iter().for_each(|former| choice.set(former)));
    body()
}
