//! What the host does around a restore: stop its daemon, ask a sample question, start it again.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::{Either, select};
use futures_timer::Delay;

use crate::{
    error::{Error, ErrorKind, Result},
    worker::guarded,
};

/// What the host does around a restore. Each call has a
/// [deadline](crate::Stores::hook_deadline); one that passes it has failed.
///
/// ```
/// use backup_core::{Error, ErrorKind, RestoreHooks, Result, async_trait};
///
/// struct Daemon;
///
/// #[async_trait]
/// impl RestoreHooks for Daemon {
///     async fn stop(&self) -> Result<()> {
///         Ok(()) // systemctl stop …
///     }
///     async fn check(&self) -> Result<()> {
///         let answers = true; // a sample question to the restored stores
///         if answers { Ok(()) } else { Err(Error::new(ErrorKind::Mismatch, "no answer")) }
///     }
///     async fn start(&self) -> Result<()> {
///         Ok(()) // systemctl start …
///     }
/// }
/// ```
#[async_trait]
pub trait RestoreHooks: Send + Sync {
    /// Stops what uses the stores, before the first of them is switched. Called again by a
    /// [`resume`](crate::Stores::resume), also where it has stopped.
    ///
    /// # Errors
    /// It goes on using them: the restore is then given up, and nothing was changed.
    async fn stop(&self) -> Result<()> {
        Ok(())
    }

    /// Looks at the restored stores with the application's eyes, once their content was read
    /// back and found equal, and while all of it can still be taken back. Writes nothing.
    ///
    /// # Errors
    /// They do not serve the application: the restore is taken back.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Starts the application again, however the restore ended; called wherever
    /// [`stop`](Self::stop) was, and at the end of every `resume`. Not called where the stores
    /// are left in a mixture.
    ///
    /// # Errors
    /// A warning of the report: the stores are right.
    async fn start(&self) -> Result<()> {
        Ok(())
    }
}

/// The host's hooks, if it has any.
#[derive(Clone)]
pub(crate) struct Hooks {
    pub(crate) host: Option<Arc<dyn RestoreHooks>>,
    pub(crate) deadline: Duration,
}

impl Hooks {
    pub(crate) async fn stop(&self) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        self.limited("stopping the application", host.stop()).await
    }

    pub(crate) async fn check(&self) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        self.limited("the application's check", host.check()).await
    }

    pub(crate) async fn start(&self) -> Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        self.limited("starting the application", host.start()).await
    }

    async fn limited(&self, what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
        match select(pin!(guarded(what, work)), Delay::new(self.deadline)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                let seconds = self.deadline.as_secs_f64();
                Err(Error::new(ErrorKind::Busy, format!("not done after {seconds} seconds"))
                    .on(what)
                    .advise("give it more time, or do it by hand"))
            }
        }
    }
}
