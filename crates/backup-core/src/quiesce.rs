//! A pause of the application, as a lease that ends by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::{
    error::Result,
    event::{Event, Watch},
    worker::guarded,
};

/// Pauses the application's writes, so that several stores can be fixed at one moment.
///
/// The host implements it; the engine calls it. A pause is a *lease*: the host itself ends
/// it when its time is over, also where the engine hangs or was killed, so that no backup
/// can stop an application for good.
///
/// A backup pauses, pins every store, and resumes; where a store cannot be pinned, the
/// [policy](crate::LivePolicy) may hold the pause through its copy. A restore pauses from
/// the first switch to the end, so that taking it back throws nobody's writes away.
#[async_trait]
pub trait Quiesce: Send + Sync {
    /// Returns once no write is under way, and keeps new ones waiting for at most `lease`.
    ///
    /// # Errors
    /// The application could not be paused; the run is then given up.
    async fn pause(&self, lease: Duration) -> Result<Box<dyn Pause>>;
}

/// A pause under way. Dropping it ends it.
#[async_trait]
pub trait Pause: Send + Sync {
    /// Lets the pause last `lease` from now.
    ///
    /// # Errors
    /// It had run out, or cannot be made longer.
    async fn renew(&self, lease: Duration) -> Result<()>;

    /// Ends the pause. Returns whether it had held until now without a gap.
    ///
    /// # Errors
    /// The host cannot tell.
    async fn resume(self: Box<Self>) -> Result<bool>;
}

// How this run pauses the application, if it can.
#[derive(Clone)]
pub(crate) struct Pauser {
    pub(crate) host: Option<Arc<dyn Quiesce>>,
    pub(crate) length: Duration,
    pub(crate) watch: Watch,
}

impl Pauser {
    pub(crate) async fn take(&self) -> Result<Option<Lease>> {
        let Some(host) = &self.host else { return Ok(None) };
        // Before the call: the host's clock starts later, so ours runs out first.
        let renewed = Instant::now();
        let pause = guarded("the pause of the application", host.pause(self.length)).await?;
        self.watch.tell(Event::Paused);
        let (length, watch) = (self.length, self.watch.clone());
        Ok(Some(Lease { pause, length, watch, renewed, lost: false }))
    }
}

// The engine's side of a pause: renews it in time and knows when it was lost. It trusts its
// own watch as well as the host's word.
pub(crate) struct Lease {
    pause: Box<dyn Pause>,
    length: Duration,
    watch: Watch,
    renewed: Instant,
    lost: bool,
}

impl Lease {
    // Call it often. Renews in the second half of the lease.
    pub(crate) async fn keep(&mut self) {
        let now = Instant::now();
        let age = now - self.renewed;
        self.lost |= age >= self.length;
        if !self.lost && age >= self.length / 2 {
            self.lost = self.pause.renew(self.length).await.is_err();
            self.renewed = now;
        }
    }

    // Ends the pause; whether it held.
    pub(crate) async fn release(self) -> bool {
        let in_time = !self.lost && self.renewed.elapsed() < self.length;
        let held = guarded("", self.pause.resume()).await.unwrap_or(false) && in_time;
        self.watch.tell(Event::Resumed { held });
        held
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::executor::block_on;

    use super::*;
    use crate::error::Error;

    // Counts pauses and open pauses; says what it is told to.
    #[derive(Clone, Default)]
    pub(crate) struct TestQuiesce {
        pub(crate) pauses: Arc<AtomicUsize>,
        pub(crate) open: Arc<AtomicUsize>,
        pub(crate) renewals: Arc<AtomicUsize>,
        pub(crate) runs_out: bool,
        pub(crate) refuses: bool,
    }

    struct TestPause(TestQuiesce);

    #[async_trait]
    impl Quiesce for TestQuiesce {
        async fn pause(&self, _: Duration) -> Result<Box<dyn Pause>> {
            if self.refuses {
                return Err(Error::adapter("no pause now"));
            }
            self.pauses.fetch_add(1, Ordering::SeqCst);
            self.open.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(TestPause(self.clone())))
        }
    }

    #[async_trait]
    impl Pause for TestPause {
        async fn renew(&self, _: Duration) -> Result<()> {
            self.0.renewals.fetch_add(1, Ordering::SeqCst);
            if self.0.runs_out { Err(Error::adapter("it ran out")) } else { Ok(()) }
        }
        async fn resume(self: Box<Self>) -> Result<bool> {
            Ok(!self.0.runs_out)
        }
    }

    impl Drop for TestPause {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn take(host: &TestQuiesce, seconds: u64) -> Lease {
        let pauser = Pauser {
            host: Some(Arc::new(host.clone())),
            length: Duration::from_secs(seconds),
            watch: Watch::default(),
        };
        block_on(pauser.take()).unwrap().unwrap()
    }

    #[test]
    fn a_lease_is_renewed_in_time_and_lost_after_it() {
        let host = TestQuiesce::default();
        let mut lease = take(&host, 3600);
        block_on(lease.keep());
        assert_eq!(host.renewals.load(Ordering::SeqCst), 0);
        lease.renewed -= Duration::from_secs(1900);
        block_on(lease.keep());
        assert_eq!(host.renewals.load(Ordering::SeqCst), 1);
        assert!(block_on(lease.release()));

        let mut late = take(&host, 3600);
        late.renewed -= Duration::from_secs(3601);
        block_on(late.keep());
        assert!(!block_on(late.release()));

        // Nobody asked meanwhile, and it ran out all the same.
        assert!(!block_on(take(&host, 0).release()));
        assert_eq!(host.open.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn the_hosts_word_counts() {
        let host = TestQuiesce { runs_out: true, ..TestQuiesce::default() };
        assert!(!block_on(take(&host, 3600).release()));
        let mut renewed = take(&host, 3600);
        renewed.renewed -= Duration::from_secs(1900);
        block_on(renewed.keep());
        assert!(renewed.lost);
    }
}
