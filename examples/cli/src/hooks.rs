//! The programs of `[restore]`, run around a restore.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use backup_kit::{Error, ErrorKind, RestoreHooks, Result, Stores, async_trait};
use futures::channel::oneshot;

use crate::config::{Hook, Hooks};

/// How often a program that runs is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The stores with these hooks.
pub(crate) fn add(stores: Stores, hooks: &Hooks, quiet: bool) -> Stores {
    let Some(longest) = hooks.all().map(|hook| hook.deadline).max() else { return stores };
    // Each program has a deadline of its own; the library's comes after all of them.
    let programs = Programs { hooks: hooks.clone(), quiet };
    stores.hooks(programs).hook_deadline(longest.saturating_add(Duration::from_secs(10)))
}

struct Programs {
    hooks: Hooks,
    /// What they print is dropped.
    quiet: bool,
}

#[async_trait]
impl RestoreHooks for Programs {
    async fn stop(&self) -> Result<()> {
        self.run(self.hooks.stop.as_ref()).await
    }

    async fn check(&self) -> Result<()> {
        self.run(self.hooks.check.as_ref()).await
    }

    async fn start(&self) -> Result<()> {
        self.run(self.hooks.start.as_ref()).await
    }
}

impl Programs {
    async fn run(&self, hook: Option<&Hook>) -> Result<()> {
        let Some(hook) = hook.cloned() else { return Ok(()) };
        let (done, waits) = oneshot::channel();
        let (program, quiet) = (hook.words[0].clone(), self.quiet);
        // A thread, so that a pause of the application is kept up meanwhile.
        thread::Builder::new()
            .name("backup-kit hook".into())
            .spawn(move || done.send(run(&hook, quiet)))
            .map_err(|e| Error::io("a thread cannot be made", e))?;
        let ended = waits.await.map_err(|_| Error::adapter("a hook panicked"))?;
        ended.map_err(|e| e.on(program))
    }
}

fn run(hook: &Hook, quiet: bool) -> Result<()> {
    // Standard output is for the result.
    let output = || if quiet { Stdio::null() } else { Stdio::from(std::io::stderr()) };
    let mut child = Command::new(&hook.words[0])
        .args(&hook.words[1..])
        .current_dir(&hook.folder)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .map_err(|e| Error::io("a program of [restore] cannot be run", e))?;
    match wait(&mut child, hook.deadline) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => {
            let what = format!("a program of [restore] ended with {status}");
            Err(Error::new(ErrorKind::Mismatch, what).advise("see what it printed"))
        }
        ended => {
            // It may have ended by now, which is as good.
            let _ = child.kill();
            let _ = child.wait();
            ended.map_err(|e| Error::io("a program of [restore] is lost", e))?;
            let what = format!("killed, because it took longer than {:?}", hook.deadline);
            Err(Error::new(ErrorKind::Busy, what).advise("give it more seconds in [restore]"))
        }
    }
}

// `None`: its time is over.
fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            None if begun.elapsed() < deadline => thread::sleep(LOOK),
            ended => return Ok(ended),
        }
    }
}
