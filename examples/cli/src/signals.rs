//! Ctrl-C and the like: the first asks the run to stop and clean up, the second ends it.

use std::{
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use backup_kit::{Cancel, Error, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Lets signals cancel `cancel`.
pub(crate) fn watch(cancel: Cancel) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Error::io("signals cannot be watched", e))?;
    let wait = move || {
        for signal in signals.forever() {
            if RECEIVED.swap(signal, Ordering::SeqCst) != 0 {
                // Whatever is left is found again: archives under a temporary name are never
                // taken for archives, and a restore has its journal.
                std::process::exit(128 + signal);
            }
            cancel.cancel();
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .map_err(|e| Error::io("signals cannot be watched", e))?;
    Ok(())
}

/// The exit code that tells of the signal which stopped the run, if one did.
pub(crate) fn code() -> Option<u8> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}
