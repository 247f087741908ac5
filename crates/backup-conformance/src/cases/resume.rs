//! Restores that another process takes up: every session is dropped, every store opened anew.

use backup_core::{Cancel, Reattached, Sink, SinkSession, StageToken, WriteMode};

use crate::{
    harness::Harness,
    kit::{At, Before, Checked, During, Fault, Kit, difference, ensure, write_all},
    reading::Reading,
    samples,
};

/// A target with other content, as it was, and what is to be restored into it.
struct Scene<'a, H: Harness> {
    to: At<'a, H>,
    before: Before,
    reading: Reading,
}

impl<'a, H: Harness> Scene<'a, H> {
    async fn new(kit: &Kit<'a, H>) -> Checked<Self> {
        let reading = kit.filled(&samples::standard(kit)).await?.read().await?;
        let to = kit.filled(&samples::other(kit)).await?;
        let before = to.before().await?;
        Ok(Self { to, before, reading })
    }

    async fn find(&self, token: &StageToken) -> Checked<Reattached> {
        // What a journal keeps: the token as JSON.
        let text = serde_json::to_string(token).map_err(|e| Fault::Fail(e.to_string()))?;
        let token = serde_json::from_str(&text).map_err(|e| Fault::Fail(e.to_string()))?;
        self.to.open().await?.reattach(&token).await.during("reattach")
    }

    async fn absent(&self, token: &StageToken, after: &str) -> Checked {
        match self.find(token).await? {
            Reattached::Absent => Ok(()),
            other => Err(Fault::Fail(format!("after {after}, reattach found {other:?}"))),
        }
    }

    async fn staged(&self, token: &StageToken, after: &str) -> Checked<Box<dyn SinkSession>> {
        match self.find(token).await? {
            Reattached::Staged(session) => Ok(session),
            other => Err(Fault::Fail(format!("after {after}, reattach found {other:?}"))),
        }
    }

    async fn committed(&self, token: &StageToken) -> Checked<Box<dyn SinkSession>> {
        match self.find(token).await? {
            Reattached::Committed(session) => Ok(session),
            other => Err(Fault::Fail(format!("after commit, reattach found {other:?}"))),
        }
    }

    async fn undone(&self, token: &StageToken) -> Checked<Box<dyn SinkSession>> {
        match self.find(token).await? {
            Reattached::Undone(session) => Ok(session),
            other => Err(Fault::Fail(format!("after undo, reattach found {other:?}"))),
        }
    }

    async fn is_new(&self) -> Checked {
        let content = self.to.sight().await?.content;
        ensure!(content == self.reading.content, "live is {content:?}, not the archive's");
        let trace = self.to.trace().await?;
        let left = difference(&self.before.trace, &trace);
        ensure!(trace == self.before.trace, "left behind: {left}");
        Ok(())
    }
}

pub(super) async fn reattach_finds_every_state<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let store = scene.to.open().await?;
    let plan = kit.plan(&store, WriteMode::Replace, &scene.reading);
    let token = store.prepare(&plan).await.during("prepare")?.token;
    drop(store);
    scene.absent(&token, "prepare").await?;
    drop(scene.to.open().await?.begin(&token, &Cancel::new()).await.during("begin")?);
    drop(scene.staged(&token, "begin").await?);
    // Repeated by a process that did not hear of it.
    let again = scene.to.open().await?.begin(&token, &Cancel::new()).await;
    let session = again.during("the second begin")?;
    write_all(&*session, &scene.reading.parts).await.during("write")?;
    drop(session);
    drop(scene.staged(&token, "write").await?);
    // Nobody can know whether the last write had ended: from the first part on again.
    let again = scene.to.open().await?.begin(&token, &Cancel::new()).await;
    let session = again.during("the third begin")?;
    write_all(&*session, &scene.reading.parts).await.during("writing again")?;
    let found = session.verify(&scene.reading.content).await.during("verify")?;
    ensure!(found == scene.reading.content, "begun anew and staged {found:?}");
    drop(session);
    scene.staged(&token, "verify").await?.commit().await.during("commit")?;
    let session = scene.committed(&token).await?;
    if kit.can.undo {
        session.undo().await.during("undo")?;
        drop(session);
        scene.undone(&token).await?.finish().await.during("finish")?;
        scene.absent(&token, "finish").await?;
        scene.to.is_as_before(&scene.before).await
    } else {
        session.finish().await.during("finish")?;
        scene.absent(&token, "finish").await
    }
}

/// Half of the parts by one process, half by another: exact, refused, or seen in the figures.
pub(super) async fn half_staged_is_never_taken_for_whole<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let (token, session) = kit.begin(&scene.to.open().await?, &scene.reading).await?;
    let half = scene.reading.parts.len() / 2;
    write_all(&*session, &scene.reading.parts[..half]).await.during("write")?;
    drop(session);
    let session = scene.staged(&token, "half of the parts").await?;
    let found = async {
        write_all(&*session, &scene.reading.parts[half..]).await?;
        session.verify(&scene.reading.content).await
    };
    match found.await {
        Ok(found) if found == scene.reading.content => {
            session.commit().await.during("commit")?;
            session.finish().await.during("finish")?;
            drop(session);
            return scene.is_new().await;
        }
        Ok(_) => kit.note("what another process staged is dropped"),
        Err(error) => kit.note(format!("half a staging area is not gone on with: {error}")),
    }
    drop(session);
    scene.to.clean(&token).await?;
    scene.to.is_as_before(&scene.before).await
}

/// What was verified by one process is verified again and committed by others.
pub(super) async fn verified_can_be_committed<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let (token, session) = kit.stage(&scene.to.open().await?, &scene.reading).await?;
    session.verify(&scene.reading.content).await.during("verify")?;
    drop(session);
    let session = scene.staged(&token, "verify").await?;
    let found = session.verify(&scene.reading.content).await.during("verify again")?;
    ensure!(found == scene.reading.content, "staged {found:?} of {:?}", scene.reading.content);
    drop(session);
    scene.staged(&token, "a second verify").await?.commit().await.during("commit")?;
    scene.committed(&token).await?.finish().await.during("finish")?;
    scene.is_new().await
}

pub(super) async fn staged_can_be_aborted<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let (token, session) = kit.stage(&scene.to.open().await?, &scene.reading).await?;
    drop(session);
    scene.staged(&token, "write").await?.abort().await.during("abort")?;
    scene.absent(&token, "abort").await?;
    scene.to.is_as_before(&scene.before).await
}

pub(super) async fn committed_can_be_undone<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    kit.needs(kit.can.undo, "undo")?;
    let scene = Scene::new(kit).await?;
    let (token, session) = kit.stage(&scene.to.open().await?, &scene.reading).await?;
    session.commit().await.during("commit")?;
    drop(session);
    scene.committed(&token).await?.undo().await.during("undo")?;
    scene.undone(&token).await?.undo().await.during("undo by a third process")?;
    scene.undone(&token).await?.finish().await.during("finish")?;
    scene.to.is_as_before(&scene.before).await
}

pub(super) async fn committed_can_be_finished<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let (token, session) = kit.stage(&scene.to.open().await?, &scene.reading).await?;
    session.commit().await.during("commit")?;
    drop(session);
    let session = scene.committed(&token).await?;
    // Told again by a process that died before it could write it down.
    session.commit().await.during("commit by another process")?;
    let found = session.verify(&scene.reading.content).await.during("verify")?;
    ensure!(found == scene.reading.content, "live is {found:?} of {:?}", scene.reading.content);
    session.finish().await.during("finish")?;
    drop(session);
    scene.absent(&token, "finish").await?;
    scene.is_new().await
}

/// The second is refused, or the two do not touch each other.
pub(super) async fn two_restores_at_once<H: Harness>(kit: &Kit<'_, H>) -> Checked {
    let scene = Scene::new(kit).await?;
    let store = scene.to.open().await?;
    let (_, first) = kit.stage(&store, &scene.reading).await?;
    let plan = kit.plan(&store, WriteMode::Replace, &scene.reading);
    let second = async {
        let token = store.prepare(&plan).await?.token;
        let session = store.begin(&token, &Cancel::new()).await?;
        if let Some(part) = scene.reading.parts.first() {
            session.write(part.to_part()).await?;
        }
        session.abort().await
    };
    if let Err(error) = second.await {
        kit.note(format!("a second restore is refused: {error}"));
    }
    let found = first.verify(&scene.reading.content).await.during("verify")?;
    ensure!(found == scene.reading.content, "a second restore disturbed the first");
    first.commit().await.during("commit")?;
    first.finish().await.during("finish")?;
    drop(first);
    scene.is_new().await
}
