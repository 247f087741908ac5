//! Writers held back, everywhere at once and not for longer than the servers were told.

use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};

use crate::client::{Client, Primary};

/// A pause of every primary. The servers end it by themselves when its time is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) until: Instant,
    most: Duration,
}

impl Pause {
    /// Holds writers back everywhere, or nowhere.
    pub(crate) async fn begin(
        client: &Client,
        primaries: &[Primary],
        most: Duration,
    ) -> Result<Self> {
        // Taken before: the server's own clock starts later, and so ends later.
        let until = Instant::now() + most;
        let mut paused = Ok(());
        for primary in primaries {
            let mut pause = redis::cmd("CLIENT");
            pause.arg("PAUSE").arg(most.as_millis().max(1) as u64).arg("WRITE");
            let done = async {
                let node = client.at(primary.address.as_ref(), 0).await?;
                node.one(&pause).await.map(drop)
            };
            let done = done.await;
            paused = paused.and(done);
        }
        if paused.is_err() {
            Self::end(client, primaries).await?;
        }
        paused.map(|()| Self { until, most })
    }

    /// What was seen after its end may be of another moment.
    pub(crate) fn in_time(&self, what: &str) -> Result<()> {
        if Instant::now() < self.until {
            return Ok(());
        }
        let most = self.most.as_millis();
        let what = format!("{what} took longer than the {most} ms for which writers are held back");
        Err(Error::new(ErrorKind::Busy, what)
            .advise("allow a longer pause, or take the backup of a snapshot")
            .retryable(false))
    }

    /// Lets writers go on.
    pub(crate) async fn end(client: &Client, primaries: &[Primary]) -> Result<()> {
        let mut outcome = Ok(());
        for primary in primaries {
            let ended = async {
                let node = client.at(primary.address.as_ref(), 0).await?;
                node.one(redis::cmd("CLIENT").arg("UNPAUSE")).await.map(drop)
            };
            let ended = ended.await;
            outcome = outcome.and(ended);
        }
        outcome.map_err(|error: Error| {
            error.advise("the server lets writers go on by itself when the time is over")
        })
    }
}
