//! An adapter for a store of your own: a file of JSON lines, one object a line, each with an `id`.
//!
//!     cargo run --example custom_adapter
//!
//! runs the conformance kit over it, and then a backup, a loss and a restore.
//! [docs/ADAPTERS.md](../docs/ADAPTERS.md) explains it piece by piece.

// This is a program: what it has to say, it prints.
#![allow(clippy::print_stdout)]

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Take, Write},
    mem,
    path::{self, Path, PathBuf},
};

use backup_conformance::{Asked, Dataset, Harness};
use backup_core::{
    Adapter, Cancel, Capabilities, Catalog, CollectionDescription, CollectionEnd, Content,
    Description, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Prepared, Reattached,
    Result, Schema, Sink, SinkSession, Source, SourceSession, StagePlan, StageToken, Stores,
    Summary, Switch, Worker, async_trait,
    manifest::CollectionInfo,
    record::{
        BatchBuilder, Key, RecordBatch, Tally, canonical,
        tagged::{self, Scalar},
    },
};

/// The only collection.
const LINES: &str = "lines";

/// A file of JSON lines. The application changes it by appending whole lines, or by writing
/// another file and renaming that to its name. No file means no lines. Only for systems on
/// which a folder can be synced: Unix.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
}

impl JsonLines {
    /// Names the file; nothing is opened yet.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        // Of a link, what it leads to: a rename would replace the link.
        let path = fs::canonicalize(&path).or_else(|_| path::absolute(&path))?;
        Ok(Self { path })
    }
}

#[async_trait]
impl Adapter for JsonLines {
    fn kind(&self) -> &'static str {
        "json-lines"
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.records = true;
        can.pins = true;
        can.undo = true;
        can
    }

    fn owned_paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    async fn describe(&self) -> Result<Description> {
        let mut lines = CollectionDescription::new(LINES);
        lines.bytes = fs::metadata(&self.path).ok().map(|facts| facts.len());
        let mut description = Description::new("JSON lines");
        description.collections.push(lines);
        Ok(description)
    }
}

#[async_trait]
impl Source for JsonLines {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        request.cancel.check()?;
        if let Some(other) = request.collections.iter().find(|name| *name != LINES) {
            return Err(Error::new(ErrorKind::NotFound, "there is no such collection").on(other));
        }
        let (path, cancel) = (self.path.clone(), request.cancel.clone());
        let lines = Worker::spawn("json-lines read", move || Lines::open(&path, cancel))?;
        Ok(Pinned::Pinned { session: Box::new(Reading(lines)), mark: None })
    }
}

/// The lines that a file has at one moment.
///
/// An open file outlives its name, and what is appended later stands behind the length that
/// the file had: so these lines stay the same whatever the application does.
struct Lines {
    path: PathBuf,
    file: Option<BufReader<Take<File>>>,
    cancel: Cancel,
    count: u64,
    begun: bool,
    ended: bool,
}

impl Lines {
    fn open(path: &Path, cancel: Cancel) -> Result<Self> {
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.and_then(|file| {
                let len = file.metadata()?.len();
                Ok(BufReader::new(file.take(len)))
            })),
        };
        let file = file.transpose().map_err(|e| failed("opened", path, e))?;
        Ok(Self { path: path.to_owned(), file, cancel, count: 0, begun: false, ended: false })
    }

    /// The next records, at most 4 MiB and one line; `None` at the end.
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        self.cancel.check()?;
        let mut batch = BatchBuilder::new(LINES);
        let mut line = Vec::new();
        while let Some(file) = &mut self.file
            && !batch.is_full()
        {
            line.clear();
            if file.read_until(b'\n', &mut line).map_err(|e| failed("read", &self.path, e))? == 0 {
                // Fewer bytes than there were: it was cut, and what came so far is worth nothing.
                if file.get_ref().limit() > 0 {
                    let what = "the file became shorter while it was read";
                    return Err(Error::new(ErrorKind::Busy, what).on(self.path.display()));
                }
                break;
            }
            self.count += 1;
            push(&mut batch, &line)
                .map_err(|e| e.on(format!("{}:{}", self.path.display(), self.count)))?;
        }
        (!batch.is_empty()).then(|| batch.finish()).transpose()
    }

    /// Schema, records, end: the order that every collection has.
    fn next(&mut self) -> Result<Option<Part>> {
        if !mem::replace(&mut self.begun, true) {
            return Ok(Some(Part::Schema(Schema {
                collection: LINES.to_owned(),
                document: serde_json::json!({}),
                info: CollectionInfo::default(),
            })));
        }
        if let Some(batch) = self.batch()? {
            return Ok(Some(Part::Records(batch)));
        }
        let mut end = CollectionEnd { collection: LINES.to_owned(), ..Default::default() };
        end.count = Some(self.count);
        Ok((!mem::replace(&mut self.ended, true)).then_some(Part::End(end)))
    }
}

/// A line becomes a record: its key is the `id`, its value the whole object.
fn push(batch: &mut BatchBuilder, line: &[u8]) -> Result<()> {
    let object = canonical::parse(line)?;
    let Some(id) = object.get("id") else {
        return Err(Error::new(ErrorKind::Unsupported, "a line is not an object with an `id`"));
    };
    let key = Key::from_json(&tagged::escape(id.clone()).to_string())?;
    batch.push(&key, |json| json.value(&tagged::escape(object)))
}

/// A record becomes a line again.
fn line(value: &str) -> Result<Vec<u8>> {
    let mut line = Vec::with_capacity(value.len() + 1);
    let object = tagged::unescape(canonical::parse(value.as_bytes())?);
    canonical::Writer::new(&mut line).value(&object)?;
    line.push(b'\n');
    Ok(line)
}

fn failed(verb: &str, path: &Path, cause: io::Error) -> Error {
    Error::io(format!("a file could not be {verb}"), cause).on(path.display())
}

struct Reading(Worker<Lines>);

#[async_trait]
impl SourceSession for Reading {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        Ok(vec![Partition::new("all")])
    }

    async fn next(&self, _: &Partition) -> Result<Option<Part>> {
        self.0.call(Lines::next).await
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        Ok(Summary::new())
    }
}

/// The files of one restore, beside the live one. Which of them are there tells how far it is.
#[derive(Clone)]
struct Stage {
    live: PathBuf,
    /// What is restored, until it becomes the live file.
    new: PathBuf,
    /// What was live before, as long as it is not live again.
    old: PathBuf,
    /// What was restored and is taken back.
    undone: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Absent,
    Staged,
    Committed,
    Undone,
}

impl Stage {
    fn of(live: &Path, restore_id: &str) -> Result<Self> {
        // It may come from a journal that somebody tampered with.
        if !restore_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let what = "the id of a restore is not a plain name";
            return Err(Error::new(ErrorKind::Hostile, what).on(restore_id));
        }
        let beside = |end: &str| {
            let mut name = live.as_os_str().to_owned();
            name.push(format!(".{restore_id}.{end}"));
            PathBuf::from(name)
        };
        let (new, old, undone) = (beside("new"), beside("old"), beside("undone"));
        Ok(Self { live: live.to_owned(), new, old, undone })
    }

    fn phase(&self) -> Result<Phase> {
        let marks = [
            (&self.new, Phase::Staged),
            (&self.old, Phase::Committed),
            (&self.undone, Phase::Undone),
        ];
        for (path, phase) in marks {
            if path.try_exists().map_err(|e| failed("looked for", path, e))? {
                return Ok(phase);
            }
        }
        Ok(Phase::Absent)
    }

    fn begin(&self) -> Result<File> {
        if let phase @ (Phase::Committed | Phase::Undone) = self.phase()? {
            return Err(out_of_order("begin", phase));
        }
        let create = || {
            let file = File::create(&self.new)?;
            // What others may not read before, they may not read afterwards.
            if let Ok(facts) = fs::metadata(&self.live) {
                file.set_permissions(facts.permissions())?;
            }
            Ok(file)
        };
        create().map_err(|e| failed("made", &self.new, e))
    }

    fn verify(&self, cancel: &Cancel) -> Result<Content> {
        let path = match self.phase()? {
            Phase::Absent => return Err(out_of_order("verify", Phase::Absent)),
            Phase::Staged => &self.new,
            Phase::Committed | Phase::Undone => &self.live,
        };
        let mut lines = Lines::open(path, cancel.clone())?;
        let mut tally = Tally::new();
        while let Some(batch) = lines.batch()? {
            tally.add_batch(&batch);
        }
        let mut content = Content::new();
        content.collections.insert(LINES.to_owned(), tally);
        Ok(content)
    }

    fn commit(&self) -> Result<()> {
        match self.phase()? {
            Phase::Staged => {}
            Phase::Committed => return Ok(()),
            phase => return Err(out_of_order("commit", phase)),
        }
        let switch = || {
            File::open(&self.new)?.sync_all()?;
            // One from a commit that did not end may not be what is live now.
            remove(&self.old)?;
            match fs::hard_link(&self.live, &self.old) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => drop(File::create(&self.old)?),
                linked => linked?,
            }
            self.sync()?;
            fs::rename(&self.new, &self.live)?;
            self.sync()
        };
        switch().map_err(|e| failed("replaced", &self.live, e))
    }

    fn undo(&self) -> Result<()> {
        match self.phase()? {
            Phase::Committed => {}
            Phase::Undone => return Ok(()),
            phase => return Err(out_of_order("undo", phase)),
        }
        let switch = || {
            remove(&self.undone)?;
            fs::hard_link(&self.live, &self.undone)?;
            self.sync()?;
            fs::rename(&self.old, &self.live)?;
            self.sync()
        };
        switch().map_err(|e| {
            let what = format!("what was there before is in {}", self.old.display());
            failed("put back", &self.live, e).advise(what)
        })
    }

    fn finish(&self) -> Result<()> {
        match self.phase()? {
            Phase::Staged => Err(out_of_order("finish", Phase::Staged)),
            _ => self.remove(&[&self.undone, &self.old]),
        }
    }

    fn abort(&self) -> Result<()> {
        match self.phase()? {
            Phase::Staged | Phase::Absent => self.remove(&[&self.old, &self.new]),
            phase => Err(out_of_order("abort", phase)),
        }
    }

    /// The last of `paths` is the mark of the phase: until it goes, the verb can be repeated.
    fn remove(&self, paths: &[&PathBuf]) -> Result<()> {
        for path in paths {
            remove(path).map_err(|e| failed("removed", path, e))?;
        }
        self.sync().map_err(|e| failed("removed for good", &self.live, e))
    }

    /// A name is on the disk when its folder is.
    fn sync(&self) -> io::Result<()> {
        File::open(self.live.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn out_of_order(verb: &str, phase: Phase) -> Error {
    Error::adapter(format!("{verb} was called out of order: the restore is {phase:?}"))
}

#[async_trait]
impl Sink for JsonLines {
    fn staging_paths(&self, restore_id: &str) -> Vec<PathBuf> {
        let stage = Stage::of(&self.path, restore_id);
        stage.map_or(Vec::new(), |stage| vec![stage.new, stage.old, stage.undone])
    }

    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        Stage::of(&self.path, &plan.restore_id)?;
        let token = plan.token(&(&self.path, &plan.restore_id))?;
        Ok(Prepared { token, switch: Switch::AtomicPointer, notes: Vec::new() })
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let stage = self.stage(token)?;
        let file = Some(stage.begin()?);
        Writing::session(stage, file, cancel.clone())
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let stage = self.stage(token)?;
        let phase = stage.phase()?;
        let session = || Writing::session(stage, None, Cancel::new());
        Ok(match phase {
            Phase::Absent => Reattached::Absent,
            Phase::Staged => Reattached::Staged(session()?),
            Phase::Committed => Reattached::Committed(session()?),
            Phase::Undone => Reattached::Undone(session()?),
        })
    }
}

impl JsonLines {
    fn stage(&self, token: &StageToken) -> Result<Stage> {
        let (path, restore_id): (PathBuf, String) = token.read(self)?;
        if path != self.path {
            let what = "a restore was begun for another file";
            return Err(Error::new(ErrorKind::Incompatible, what).on(path.display()));
        }
        Stage::of(&path, &restore_id)
    }
}

struct Writing {
    stage: Stage,
    /// None in a session that was reattached: nobody knows how much of the last write arrived.
    file: Option<File>,
    begun: bool,
    cancel: Cancel,
}

impl Writing {
    fn session(stage: Stage, file: Option<File>, cancel: Cancel) -> Result<Box<dyn SinkSession>> {
        let writing = Self { stage, file, begun: false, cancel };
        let worker = Worker::spawn("json-lines write", move || Ok(writing))?;
        Ok(Box::new(WritingSession(worker)))
    }

    fn write(&mut self, part: Part) -> Result<()> {
        self.cancel.check()?;
        match (part, &mut self.file) {
            (Part::Schema(schema), _) if schema.collection == LINES => self.begun = true,
            (Part::Records(batch), Some(file)) if self.begun && batch.collection() == LINES => {
                let mut text = Vec::new();
                for record in batch.iter() {
                    text.extend(line(record.value_json())?);
                }
                file.write_all(&text).map_err(|e| failed("written", &self.stage.new, e))?;
            }
            (Part::End(_) | Part::Notice(_), _) => {}
            _ => {
                let what = "a file of JSON lines cannot take such a part, or not now";
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        }
        Ok(())
    }
}

struct WritingSession(Worker<Writing>);

#[async_trait]
impl SinkSession for WritingSession {
    async fn write(&self, part: Part) -> Result<()> {
        self.0.call(|writing| writing.write(part)).await
    }

    async fn verify(&self, _: &Content) -> Result<Content> {
        self.0.call(|writing| writing.stage.verify(&writing.cancel)).await
    }

    async fn commit(&self) -> Result<()> {
        self.0.call(|writing| writing.stage.commit()).await
    }

    async fn undo(&self) -> Result<()> {
        self.0.call(|writing| writing.stage.undo()).await
    }

    async fn finish(&self) -> Result<()> {
        self.0.call(|writing| writing.stage.finish()).await
    }

    async fn abort(&self) -> Result<()> {
        self.0.call(|writing| writing.stage.abort()).await
    }
}

/// How the conformance kit makes, fills and looks at such files, without the adapter.
struct Files;

fn file_in(place: &tempfile::TempDir) -> PathBuf {
    place.path().join("notes.jsonl")
}

#[async_trait(?Send)]
impl Harness for Files {
    type Place = tempfile::TempDir;
    type Store = JsonLines;

    async fn place(&self) -> Result<tempfile::TempDir> {
        let place = tempfile::tempdir()?;
        File::create(file_in(&place))?;
        Ok(place)
    }

    async fn open(&self, place: &tempfile::TempDir) -> Result<JsonLines> {
        JsonLines::new(file_in(place))
    }

    async fn fill(&self, place: &tempfile::TempDir, data: &Dataset) -> Result<()> {
        let mut text = String::new();
        for row in data.collections.iter().flat_map(|collection| &collection.rows) {
            let mut object = tagged::unescape(row.value());
            object["id"] = match row.key.scalars().unwrap_or_default().as_slice() {
                [Scalar::Text(id)] => id.as_str().into(),
                [Scalar::Integer(id)] => i64::try_from(*id).expect("from an i64").into(),
                other => unreachable!("not held: {other:?}"),
            };
            text += &format!("{object}\n");
        }
        Ok(fs::write(file_in(place), text)?)
    }

    async fn change(&self, place: &tempfile::TempDir) -> Result<()> {
        let mut file = File::options().append(true).open(file_in(place))?;
        Ok(file.write_all(b"{\"id\":\"another\",\"mark\":\"appended\"}\n")?)
    }

    async fn dump(&self, place: &tempfile::TempDir) -> Result<Option<Vec<String>>> {
        let text = fs::read_to_string(file_in(place))?;
        // The order of members is no content: a host may have `preserve_order` on.
        text.lines()
            .map(|line| canonical::canonicalize(line.as_bytes()))
            .collect::<Result<_>>()
            .map(Some)
    }

    async fn trace(&self, place: &tempfile::TempDir) -> Result<Option<Vec<String>>> {
        let names = fs::read_dir(place.path())?.map(|entry| entry.map(|e| e.file_name()));
        Ok(Some(names.map(|name| Ok(format!("{:?}", name?))).collect::<io::Result<_>>()?))
    }

    fn collection(&self) -> String {
        LINES.to_owned()
    }

    fn holds(&self, what: Asked<'_>) -> bool {
        let plain = |value: &Scalar| match value {
            Scalar::Bytes(_) => false,
            Scalar::Float(f) => f.is_finite(),
            _ => true,
        };
        match what {
            Asked::Value(value) => plain(value),
            Asked::Key(key) => key.scalars().is_some_and(|ids| ids.len() == 1 && plain(&ids[0])),
            _ => true,
        }
    }
}

#[test]
fn conforms() {
    backup_conformance::run(&Files);
}

#[test]
fn what_a_crash_leaves_within_a_verb_is_taken_up() {
    let place = tempfile::tempdir().unwrap();
    let live = file_in(&place);
    let stage = Stage::of(&live, "r1").unwrap();
    fs::write(&live, "before").unwrap();
    fs::write(&stage.new, "restored").unwrap();

    // Commit died before the rename, and the application went on.
    fs::hard_link(&live, &stage.old).unwrap();
    fs::remove_file(&live).unwrap();
    fs::write(&live, "later").unwrap();
    assert_eq!(stage.phase().unwrap(), Phase::Staged);
    stage.commit().unwrap();
    assert_eq!(fs::read_to_string(&live).unwrap(), "restored");

    // Undo died before the rename.
    fs::hard_link(&live, &stage.undone).unwrap();
    assert_eq!(stage.phase().unwrap(), Phase::Committed);
    stage.undo().unwrap();
    assert_eq!(fs::read_to_string(&live).unwrap(), "later");
    assert_eq!(stage.phase().unwrap(), Phase::Undone);
    stage.finish().unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_an_error_and_not_a_short_backup() {
    let place = tempfile::tempdir().unwrap();
    fs::write(file_in(&place), "{\"id\":1}\n{\"id\":2}\n").unwrap();
    let mut lines = Lines::open(&file_in(&place), Cancel::new()).unwrap();
    File::create(file_in(&place)).unwrap();
    assert_eq!(lines.batch().unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_token_leads_to_no_other_file() {
    assert!(Stage::of(Path::new("/a/notes.jsonl"), "../b").is_err());
    let store = |path: &str| JsonLines::new(path).unwrap();
    let plan = StagePlan::new("r1", "notes", store("/a").kind());
    let token = futures::executor::block_on(store("/a").prepare(&plan)).unwrap().token;
    assert!(store("/a").stage(&token).is_ok() && store("/b").stage(&token).is_err());
}

#[test]
fn what_is_lost_comes_back() {
    demonstrate().unwrap();
}

fn main() -> Result<()> {
    backup_conformance::run(&Files);
    demonstrate()
}

/// A backup, a loss, a restore.
fn demonstrate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notes.jsonl");
    let text = "{\"id\":1,\"text\":\"remember\"}\n{\"id\":\"two\",\"text\":\"this\"}\n";
    fs::write(&path, text)?;

    futures::executor::block_on(async {
        let memory = Stores::new("custom", "1.0.0").with("notes", JsonLines::new(&path)?);
        let catalog = Catalog::open(folder.path().join("backups"))?;
        let backup = memory.backup(&catalog).await?;
        println!("backed up as {}", backup.id);

        fs::write(&path, "{\"id\":1,\"text\":\"changed\"}\n")?;
        let plan = memory.plan_restore(&catalog.latest()?).await?;
        println!("{plan}");
        plan.execute().await?;
        assert_eq!(fs::read_to_string(&path)?, text);
        println!("restored, to the byte");
        Ok(())
    })
}
