//! How parts are handed to sinks.

use std::{pin::Pin, task::Context};

use futures::stream;

use super::*;
use crate::{
    Content, EntryKind, FileEntry, Part, Schema, SinkSession, async_trait, byte_stream,
    event::Watch,
    record::{BatchBuilder, Key, RecordBatch},
    restore::stage::{Lane, stage},
};

/// A sink that takes its time over each part and remembers what it was doing meanwhile.
#[derive(Default)]
struct Slow {
    under_way: AtomicUsize,
    most: AtomicUsize,
    fails_at: Option<usize>,
    calls: AtomicUsize,
    takes_bodies: bool,
}

// Pending for a few polls.
struct Later(usize);

impl Future for Later {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> std::task::Poll<()> {
        if self.0 == 0 {
            return std::task::Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

#[async_trait]
impl SinkSession for Slow {
    async fn existing(&self, _: &str, _: &[Key]) -> Result<Vec<RecordBatch>> {
        Err(Error::adapter("not asked for"))
    }
    async fn write(&self, part: Part) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let alone = !matches!(part, Part::Records(_));
        if let Part::Entry(FileEntry { kind: EntryKind::File { mut body, .. }, .. }) = part
            && self.takes_bodies
        {
            while body.next().await.is_some() {}
        }
        if self.fails_at == Some(call) {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::NoSpace, "full"));
        }
        Later(20).await;
        assert!(!alone || self.under_way.load(Ordering::SeqCst) == 1, "not alone");
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
    async fn verify(&self, _: &Content) -> Result<Content> {
        Err(Error::adapter("not asked for"))
    }
    async fn commit(&self) -> Result<()> {
        Ok(())
    }
    async fn undo(&self) -> Result<()> {
        Ok(())
    }
    async fn finish(&self) -> Result<()> {
        Ok(())
    }
    async fn abort(&self) -> Result<()> {
        Ok(())
    }
}

fn schema(collection: &str) -> Part {
    let (document, info) = (json!({}), CollectionInfo::default());
    Part::Schema(Schema { collection: collection.into(), document, info })
}

fn batch(collection: &str, key: i32) -> Part {
    let mut builder = BatchBuilder::new(collection);
    builder.push_json(&Key::from(key), b"1").unwrap();
    Part::Records(builder.finish().unwrap())
}

fn give(slow: &Slow, parts: Vec<(&str, Part)>) -> Result<Content> {
    let parts: Vec<_> =
        parts.into_iter().map(|(store, part)| Ok((store.to_owned(), part))).collect();
    let parts = stream::iter(parts).boxed();
    let references = &Arc::default();
    let lane = Lane {
        name: "s",
        from: "s",
        sink: &MemoryStore::new(),
        session: slow,
        way: None,
        only_looks: false,
        references,
        undo: None,
    };
    let tallies = block_on(stage(&[lane], parts, 0, &Watch::default(), &Cancel::new()))?;
    Ok(tallies.into_iter().next().unwrap().came)
}

#[test]
fn batches_go_several_at_once_and_everything_else_alone() {
    let slow = Slow::default();
    let mut parts = vec![("s", schema("a"))];
    parts.extend((0..30).map(|n| ("s", batch("a", n))));
    parts.push(("s", schema("b")));
    parts.extend((0..5).map(|n| ("s", batch("b", n))));
    let tallies = give(&slow, parts).unwrap();
    assert_eq!(tallies.collections["a"].records, 30);
    assert_eq!(tallies.collections["b"].records, 5);
    assert_eq!(slow.most.load(Ordering::SeqCst), 8);
}

#[test]
fn after_a_failure_no_write_is_under_way() {
    for fails_at in 1..20 {
        let slow = Slow { fails_at: Some(fails_at), ..Slow::default() };
        let mut parts = vec![("s", schema("a"))];
        parts.extend((0..30).map(|n| ("s", batch("a", n))));
        assert_eq!(give(&slow, parts).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(slow.under_way.load(Ordering::SeqCst), 0);
        assert!(slow.calls.load(Ordering::SeqCst) <= fails_at + 9);
    }
}

#[test]
fn a_sink_that_is_content_with_less_is_found_out() {
    let file = || {
        let kind = EntryKind::File { len: 3, body: byte_stream("abc") };
        let path = EntryPath::new("f").unwrap();
        let entry = FileEntry { root: "r".into(), path, mode: 0, modified: (0, 0), kind };
        vec![("s", schema("r")), ("s", Part::Entry(entry))]
    };
    let error = give(&Slow::default(), file()).unwrap_err();
    assert_eq!(error.to_string(), "the sink took 0 of 3 bytes and was content (s: f)");
    let slow = Slow { takes_bodies: true, ..Slow::default() };
    assert_eq!(give(&slow, file()).unwrap().collections["r"].records, 1);
    let error = give(&slow, vec![("other", schema("a"))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
