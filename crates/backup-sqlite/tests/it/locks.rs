//! Locks of the host's own connections survive a backup within its process.

use backup_core::PinRequest;
use backup_core::{Adapter, Source};
use futures::executor::block_on;

use crate::{
    child::can_write,
    fixture::{Place, RICH},
    kit::{restore, take},
};

#[test]
fn a_lock_of_the_host_still_holds_after_a_backup() {
    for mode in ["DELETE", "WAL"] {
        let place = Place::with(&format!("PRAGMA journal_mode = {mode};"));
        place.run(RICH).close().unwrap();
        assert!(can_write(&place.path), "{mode}: nobody holds it yet");
        let host = place.run("BEGIN IMMEDIATE; INSERT INTO no_key VALUES (1, 1);");
        assert!(!can_write(&place.path), "{mode}: the host holds it");
        let store = place.store();
        let taken = take(&store).unwrap();
        take(&store.clone().logical()).unwrap();
        block_on(store.describe()).unwrap();
        // One that is dropped half-way, too.
        drop(block_on(store.pin(&PinRequest::new())).unwrap());
        restore(&Place::new().store(), &taken).unwrap();
        assert!(!can_write(&place.path), "{mode}: the host holds it still");
        host.execute_batch("COMMIT").unwrap();
        assert!(can_write(&place.path), "{mode}: the host let go");
    }
}
