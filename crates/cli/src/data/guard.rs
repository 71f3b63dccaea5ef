//! Calling decoders that assert what a damaged file breaks.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder of another crate and turns a panic of it into an error. Decoders of formats as wide as Parquet assert
/// about metadata in places that no check of ours can foresee; what they were working on is given up with the error.
pub(super) fn guarded<T, E: From<String>>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(before);
    outcome.unwrap_or_else(|panic| Err(E::from(format!("the decoder gave up: {}", text(panic.as_ref())))))
}

/// Whether a panic of this thread right now will be turned into an error, so that the panic hook need not report it.
pub(crate) fn is_guarded() -> bool {
    GUARDED.get()
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_first_line() {
        let outcome: Result<(), String> = guarded(|| panic!("odd {}\nmore", "list"));
        assert_eq!(outcome, Err("the decoder gave up: odd list".to_owned()));
        assert_eq!(guarded(|| Ok::<_, String>(is_guarded())), Ok(true));
        assert!(!is_guarded());
    }
}
