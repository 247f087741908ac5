//! What the tests of several modules share.

use tokio::runtime::{Builder, Runtime};

pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("a runtime")
}
