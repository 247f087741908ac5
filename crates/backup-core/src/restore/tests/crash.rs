//! The process dies at every moment of a restore, and of its recovery.

use std::{future::poll_fn, sync::atomic::AtomicBool, task::Poll};

use super::*;
use crate::{
    Adapter, Capabilities, Conflict, Content, Description, FileEntry, Part, PinRequest, Pinned,
    Prepared, Reattached, Sink, SinkSession, Source, StagePlan, StageToken, Switch, async_trait,
    record::{Key, RecordBatch},
};

/// Counts moments, and at one of them never goes on.
#[derive(Clone, Default)]
struct Fuse {
    left: Arc<AtomicUsize>,
    blown: Arc<AtomicBool>,
}

impl Fuse {
    fn after(moments: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(moments)), blown: Arc::default() }
    }

    async fn moment(&self) {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            self.blown.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }

    // `None`: the process died.
    fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = Box::pin(work);
        block_on(poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if self.blown.load(Ordering::SeqCst) {
                return Poll::Ready(None);
            }
            polled.map(Some)
        }))
    }
}

/// A store whose every verb has a moment before and one after it.
struct Mortal {
    store: MemoryStore,
    fuse: Fuse,
    switch: Switch,
}

struct MortalSession {
    session: Box<dyn SinkSession>,
    fuse: Fuse,
}

fn mortal_set(world: &World, fuse: &Fuse, host: &TestQuiesce) -> Stores {
    let switches = [Switch::AtomicPointer, Switch::Stepwise, Switch::AtomicCopy];
    let set = Stores::new("docs", "1.0.0").quiesce(host.clone());
    NAMES.iter().zip(&world.stores).zip(switches).fold(set, |set, ((name, store), switch)| {
        set.with(*name, Mortal { store: store.clone(), fuse: fuse.clone(), switch })
    })
}

impl Mortal {
    fn session(&self, session: Box<dyn SinkSession>) -> Box<dyn SinkSession> {
        Box::new(MortalSession { session, fuse: self.fuse.clone() })
    }
}

#[async_trait]
impl Adapter for Mortal {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
    async fn describe(&self) -> Result<Description> {
        self.store.describe().await
    }
}

#[async_trait]
impl Source for Mortal {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        self.store.pin(request).await
    }
}

#[async_trait]
impl Sink for Mortal {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        let mut prepared = self.store.prepare(plan).await?;
        prepared.switch = self.switch;
        Ok(prepared)
    }
    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        self.fuse.moment().await;
        let session = self.store.begin(token, cancel).await?;
        self.fuse.moment().await;
        Ok(self.session(session))
    }
    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        self.fuse.moment().await;
        Ok(match self.store.reattach(token).await? {
            Reattached::Staged(session) => Reattached::Staged(self.session(session)),
            Reattached::Committed(session) => Reattached::Committed(self.session(session)),
            Reattached::Undone(session) => Reattached::Undone(self.session(session)),
            other => other,
        })
    }
}

macro_rules! mortal {
    ($self:ident, $call:expr) => {{
        $self.fuse.moment().await;
        let outcome = $call.await;
        $self.fuse.moment().await;
        outcome
    }};
}

#[async_trait]
impl SinkSession for MortalSession {
    async fn existing(&self, collection: &str, keys: &[Key]) -> Result<Vec<RecordBatch>> {
        self.session.existing(collection, keys).await
    }
    async fn existing_entry(&self, root: &str, path: &EntryPath) -> Result<Option<FileEntry>> {
        self.session.existing_entry(root, path).await
    }
    async fn write(&self, part: Part) -> Result<()> {
        mortal!(self, self.session.write(part))
    }
    async fn verify(&self, expected: &Content) -> Result<Content> {
        mortal!(self, self.session.verify(expected))
    }
    async fn commit(&self) -> Result<()> {
        mortal!(self, self.session.commit())
    }
    async fn undo(&self) -> Result<()> {
        mortal!(self, self.session.undo())
    }
    async fn finish(&self) -> Result<()> {
        mortal!(self, self.session.finish())
    }
    async fn abort(&self) -> Result<()> {
        mortal!(self, self.session.abort())
    }
}

/// Dies at every moment of `execute`, then at every moment of `resume` after it, one after
/// the other, until a recovery lives to its end. Returns how often live content was new.
fn die_everywhere(options: &RestoreOptions, spoil: impl Fn(&World)) -> (usize, usize) {
    let (mut new, mut old) = (0, 0);
    // What an undisturbed restore makes.
    let undisturbed = world();
    let made = block_on(async {
        let archive = undisturbed.archive();
        set(&undisturbed.stores).plan_restore_with(&archive, options).await?.execute().await
    });
    assert!(made.unwrap().restored());
    let restored = undisturbed.now();
    for moments in 0.. {
        let mut world = world();
        world.archived.clone_from(&restored);
        spoil(&world);
        let host = TestQuiesce::default();
        let fuse = Fuse::after(moments);
        let set = mortal_set(&world, &fuse, &host);
        let plan = block_on(set.plan_restore_with(&world.archive(), options)).unwrap();
        let order: Vec<_> = plan.stores().iter().map(|store| store.name.as_str()).collect();
        assert_eq!(order, ["uploads", "vectors", "state"]);
        let lived = fuse.run(plan.execute());
        assert_eq!(host.open.load(Ordering::SeqCst), 0, "the host's pause ends with its holder");
        if let Some(outcome) = lived {
            assert!(moments > 30);
            match outcome {
                Ok(_) => world.is_new(),
                Err(_) => world.is_old(),
            }
            return (new, old);
        }
        assert!(world.journal());
        for moments in 0.. {
            // A new process, over the same stores.
            let fuse = Fuse::after(moments);
            let set = mortal_set(&world, &fuse, &host);
            let Some(outcome) = fuse.run(set.resume(world.dir.path())) else { continue };
            // `None`: the recovery before this one died when all was done.
            let restored = outcome.unwrap().map(|report| report.restored());
            match restored.unwrap_or(world.now() == world.archived) {
                true => world.is_new(),
                false => world.is_old(),
            }
            *(if world.now() == world.archived { &mut new } else { &mut old }) += 1;
            break;
        }
    }
    unreachable!("the loop ends when a restore lives")
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new_and_never_a_mixture() {
    let (new, old) = die_everywhere(&bare(), |_| {});
    // Before the first switch all goes back, and from then on all goes forward.
    assert!(new >= 10 && old >= 20, "{new} new, {old} old");
}

#[test]
fn a_crash_while_everything_is_taken_back_is_taken_back() {
    // The second and the third store have switched when the first one fails.
    let (new, old) = die_everywhere(&bare(), |world| {
        world.stores[0].fail_always(Step::Commit, ErrorKind::NoSpace);
    });
    assert!(new == 0 && old >= 30, "{new} new, {old} old");
}

#[test]
fn what_was_being_taken_back_is_not_finished_after_a_crash() {
    // The first store would switch if it were asked again: a recovery does not ask.
    let (new, old) = die_everywhere(&bare(), |world| {
        world.stores[0].fail_at(Step::Commit, 1, ErrorKind::Busy);
    });
    // Unless it died between the failure and the line that says so.
    assert!(new <= 3 && old >= 30, "{new} new, {old} old");
}

#[test]
fn a_crash_in_a_merge_leaves_all_as_it_was_or_all_merged() {
    let options = bare().merge().conflict(Conflict::Overwrite);
    let (new, old) = die_everywhere(&options, |_| {});
    assert!(new >= 10 && old >= 20, "{new} new, {old} old");
    let (new, old) = die_everywhere(&options, |world| {
        world.stores[0].fail_always(Step::Commit, ErrorKind::NoSpace);
    });
    assert!(new == 0 && old >= 30, "{new} new, {old} old");
}
