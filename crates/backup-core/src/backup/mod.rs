//! Backing up: pause, pin every store, go on, and bring all of it into one archive.

mod ledger;
mod options;
pub(crate) mod pin;
mod pump;
pub(crate) mod side;
mod spool;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{
    AsyncWrite, AsyncWriteExt as _,
    future::{join, join_all},
};

pub use self::options::{BackupOptions, BackupReport, LivePolicy, Outcome};
use self::{
    ledger::Ledger,
    pin::{Opened, Pause, Pinning},
    pump::{Lane, Pump},
    writer::{Closing, Output, Writer, Written},
};
use crate::{
    archive::OutputFile,
    catalog::{self, Catalog},
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    event::Event,
    journal::Journal,
    manifest::{Manifest, Preamble, StoreConsistency, StoreManifest, SystemInfo, TimeWindow},
    part::{Notice, NoticeKind},
    pipe::pipe,
    source::{PinRequest, Summary},
    stores::{Entry, Stores},
    worker::guarded,
};

/// Bytes of the archive that wait for the reader of a pipe.
const WAITING_BYTES: usize = 4 << 20;

impl Stores {
    /// Backs everything up into a new file of `catalog`; see
    /// [`backup_with`](Self::backup_with).
    ///
    /// # Errors
    /// As there.
    pub async fn backup(&self, catalog: &Catalog) -> Result<BackupReport> {
        self.backup_with(catalog, &BackupOptions::new()).await
    }

    /// Backs up into a new file of `catalog`, which is locked meanwhile.
    ///
    /// # Errors
    /// As [`backup_to_file`](Self::backup_to_file); [`Locked`](ErrorKind::Locked) where
    /// another backup into the catalog is under way; [`Unfinished`](ErrorKind::Unfinished)
    /// where a restore from the catalog has not come to its end.
    pub async fn backup_with(
        &self,
        catalog: &Catalog,
        options: &BackupOptions,
    ) -> Result<BackupReport> {
        let _lock = catalog.lock()?;
        Journal::none_pending(catalog.dir())?;
        let run = Run::new(self, options, Some(catalog.dir().to_owned()))?;
        let Preamble { id, created, .. } = run.preamble;
        let name = &self.application.name;
        run.into_file(catalog.file(name, created, id, options.writer.codec)).await
    }

    /// Backs up into the file `path`, which appears under that name when it is complete and
    /// on the disk.
    ///
    /// Dropping the future gives the backup up; the drop waits until the unfinished file is
    /// removed.
    ///
    /// # Errors
    /// A store that is not [optional](Self::optional) and cannot be read, an adapter that
    /// breaks its contract, a disk that is full: there is then no file.
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) without
    /// [`overwrite`](BackupOptions::overwrite).
    pub async fn backup_to_file(
        &self,
        path: impl AsRef<Path>,
        options: &BackupOptions,
    ) -> Result<BackupReport> {
        Run::new(self, options, None)?.into_file(path.as_ref().to_owned()).await
    }

    /// Backs up into anything that can be written, front to back: a pipe, object storage.
    ///
    /// `out` is closed after a success, and only then.
    ///
    /// # Errors
    /// As [`backup_to_file`](Self::backup_to_file). What was written by then is no archive,
    /// and no reader takes it for one.
    pub async fn backup_to_writer(
        &self,
        mut out: impl AsyncWrite + Unpin,
        options: &BackupOptions,
    ) -> Result<BackupReport> {
        let (sender, receiver) = pipe(WAITING_BYTES);
        let run = Run::new(self, options, None)?;
        let writing = run.start(Output::Pipe(sender), &[]);
        let failed = |e| Error::io("the archive could not be written", e);
        let copying = async {
            // Gone at the end, so that the thread does not wait for a reader that failed.
            let receiver = receiver;
            while let Some(piece) = receiver.recv().await {
                out.write_all(&piece).await.map_err(failed)?;
            }
            out.flush().await.map_err(failed)
        };
        let (written, copied) = join(writing, copying).await;
        copied?;
        let written = written?;
        out.close().await.map_err(failed)?;
        Ok(run.report(None, written))
    }
}

/// One backup.
struct Run<'a> {
    stores: &'a Stores,
    options: &'a BackupOptions,
    chosen: Vec<Arc<Entry>>,
    preamble: Preamble,
    policy: LivePolicy,
    // The catalog's.
    folder: Option<PathBuf>,
}

impl<'a> Run<'a> {
    fn new(
        stores: &'a Stores,
        options: &'a BackupOptions,
        folder: Option<PathBuf>,
    ) -> Result<Self> {
        let wrong = |what| Err(Error::new(ErrorKind::InvalidInput, what));
        let chosen = stores.chosen(options.stores.as_deref())?;
        let selection = &options.selection;
        if let Some(name) = selection.store_names().find(|name| stores.entry(name).is_none()) {
            return Err(stores.unknown(name));
        }
        let mut kept = Vec::new();
        for entry in chosen {
            // Roots and collections that are named are the adapter's business.
            let ruled = selection.rules().iter().any(|rule| rule.touches(&entry.name));
            let taken = if ruled && !entry.source.capabilities().records {
                selection.takes_unreadable(&entry.name, None)?
            } else {
                selection.takes_store(&entry.name)
            };
            kept.extend(taken.then_some(entry));
        }
        let chosen = kept;
        if chosen.is_empty() {
            return wrong("there is no store to back up");
        }
        let can_pause = stores.pauser.host.is_some();
        let policy = match options.live {
            Some(LivePolicy::HoldPause) if !can_pause => {
                return wrong("the application is to be paused, and there is no way to");
            }
            Some(policy) => policy,
            None if can_pause => LivePolicy::HoldPause,
            None => LivePolicy::AcceptFuzzy,
        };
        options.cancel.check()?;
        let clock = &stores.clock;
        let mut preamble = Preamble::new(clock.new_id(), clock.now(), stores.application.clone());
        preamble.description.clone_from(&options.description);
        Ok(Self { stores, options, chosen, preamble, policy, folder })
    }

    async fn into_file(self, path: PathBuf) -> Result<BackupReport> {
        let file = OutputFile::create(&path, self.options.overwrite)?;
        let places = [path.clone(), file.temporary().to_owned()];
        let written = self.start(Output::File(file), &places).await?;
        if self.options.sha256_file {
            write_sha256(&path, &written)?;
        }
        Ok(self.report(Some(path), written))
    }

    fn report(&self, path: Option<PathBuf>, written: Written) -> BackupReport {
        let Written { size, sha256, manifest } = written;
        self.stores.pauser.watch.tell(Event::BackupFinished {
            id: manifest.id,
            path: path.as_ref().map(|path| path.display().to_string()),
            size,
            partial: manifest.partial,
        });
        let outcome = if manifest.partial {
            let notices = manifest.notices.iter().filter(|n| n.notice.kind.makes_partial());
            Outcome::Partial(notices.cloned().collect())
        } else {
            Outcome::Complete
        };
        BackupReport { path, id: manifest.id, size, sha256, manifest, outcome }
    }

    // Takes the whole backup. However it ends, every session is closed.
    async fn start(&self, output: Output, places: &[PathBuf]) -> Result<Written> {
        let watch = &self.stores.pauser.watch;
        let names: Vec<_> = self.chosen.iter().map(|entry| entry.name.clone()).collect();
        watch.tell(Event::BackupStarted { id: self.preamble.id, stores: names.clone() });
        let facts = &self.stores.facts;
        let mut writer = Writer::spawn(
            output,
            &self.preamble,
            &self.options.writer,
            facts.config.clone().into_iter().collect(),
            Ledger::new(
                &names,
                facts.fields.clone(),
                self.options.selection.clone(),
                &self.stores.references,
                watch.clone(),
            ),
            watch.clone(),
        )?;
        let mut opened = Vec::new();
        let mut notices = Vec::new();
        let read = self.read(&mut writer, places, &mut opened, &mut notices).await;
        let (mut stores, one_pause) = match read {
            Ok(read) => read,
            Err(error) => {
                close(&mut opened).await;
                return Err(error);
            }
        };
        let summaries = close(&mut opened).await;
        let mut manifest = Manifest::new(&self.preamble, self.options.writer.codec);
        let words: Vec<_> =
            stores.iter().filter(|store| !store.missing).map(|store| store.consistency).collect();
        manifest.consistency = pin::overall(&words, one_pause);
        manifest.finished = self.stores.clock.now();
        manifest.data_schema_version.clone_from(&facts.data_schema_version);
        manifest.statistics.clone_from(&facts.statistics);
        manifest.metadata.clone_from(&facts.metadata);
        manifest.system = self.options.system_info.then(SystemInfo::current);
        if !self.options.selection.is_everything() {
            manifest.selection = self.options.selection.expressions();
        }
        for ((one, store), summary) in opened.iter().zip(&mut stores).zip(summaries) {
            match summary {
                None => {}
                Some(Ok(summary)) => {
                    store.changed = summary.changed;
                    store.metadata.extend(summary.metadata);
                }
                Some(Err(error)) => notices.push((
                    one.entry.name.clone(),
                    remark(format!("the session could not be closed: {error}")),
                )),
            }
        }
        self.options.cancel.check()?;
        writer.finish(Closing { manifest, stores, notices }).await
    }

    // Everything up to the last part. Returns what is known of each store in `opened`, and
    // whether all were fixed or copied within one pause.
    async fn read(
        &self,
        writer: &mut Writer,
        places: &[PathBuf],
        opened: &mut Vec<Opened>,
        notices: &mut Vec<(String, Notice)>,
    ) -> Result<(Vec<StoreManifest>, bool)> {
        let watch = &self.stores.pauser.watch;
        let clock = &*self.stores.clock;
        let pinning = Pinning { pauser: &self.stores.pauser, policy: self.policy, clock, watch };
        let requests =
            self.chosen.iter().map(|entry| (Arc::clone(entry), self.request(entry, places)));
        let pause = pinning.run(requests.collect(), opened, notices).await?;
        pinning.partitions(opened, notices).await?;
        // In the order of the ledger.
        opened.sort_by_key(|one| self.chosen.iter().position(|e| e.name == one.entry.name));
        if opened.iter().all(|one| one.reading.is_none()) {
            return Err(Error::new(ErrorKind::Unreachable, "none of the stores could be reached"));
        }
        self.check_names(opened)?;
        let mut ends = vec![Timestamp::default(); self.chosen.len()];
        let (mut lease, mut held) = match pause {
            Pause::Never => (None, false),
            Pause::Over { held } => (None, held),
            Pause::Lasts(lease) => (Some(lease), false),
        };
        let mut phases = vec![true];
        if lease.is_some() {
            // What needs the pause comes first, so that it ends soon.
            phases.push(false);
        }
        let paused = lease.is_some();
        for first in phases {
            let lanes = opened.iter().enumerate().flat_map(|(i, one)| {
                let reading = one.reading.iter().filter(|r| !paused || r.live == first);
                reading.flat_map(move |reading| {
                    reading.partitions.iter().map(move |partition| {
                        Lane::new(i, &one.entry.name, &*reading.session, partition)
                    })
                })
            });
            let mut pump = Pump {
                writer: &mut *writer,
                lease: lease.as_mut(),
                cancel: &self.options.cancel,
                spool_dir: &self.options.spool_dir,
                clock,
                watch,
                width: self.options.parallel,
                ends: &mut ends,
            };
            let pumped = pump.run(lanes.collect()).await;
            if let Some(lease) = lease.take() {
                held = lease.release().await;
            }
            pumped?;
        }
        if self.stores.pauser.host.is_some() && !held {
            notices.push((String::new(), remark("the application's pause ran out too early")));
        }
        let stores =
            opened.iter().zip(&ends).map(|(one, end)| self.manifest(one, *end, paused && held));
        Ok((stores.collect(), held))
    }

    fn request(&self, entry: &Entry, places: &[PathBuf]) -> PinRequest {
        let mut request = PinRequest::new();
        request.avoid = self.stores.owned_by_others(&entry.name);
        request.avoid.extend_from_slice(places);
        let more = self.folder.iter().chain(&self.options.avoid);
        request.avoid.extend(more.flat_map(|path| catalog::off_limits(path, &*entry.source)));
        let selection = &self.options.selection;
        let names = selection.named().get(&entry.name);
        request.collections = names.into_iter().flatten().cloned().collect();
        let rules = selection.rules().iter().filter(|rule| rule.touches(&entry.name));
        request.conditions =
            rules.map(|rule| (rule.collection.clone(), rule.condition.clone())).collect();
        let fields = self.stores.facts.fields.iter();
        let fields = fields.filter(|((store, _), _)| *store == entry.name);
        request.fields = fields.map(|((_, name), fields)| (name.clone(), fields.clone())).collect();
        request.unmapped = selection.when_unmapped();
        request.cancel = self.options.cancel.clone();
        request
    }

    // Adapters refuse a collection that is not there; a rule for one would choose nothing.
    fn check_names(&self, opened: &[Opened]) -> Result<()> {
        for one in opened.iter().filter(|one| one.reading.is_some()) {
            let names = one.description.collections.iter().map(|known| known.name.as_str());
            self.options.selection.check_rules(&one.entry.name, &names.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn manifest(&self, one: &Opened, end: Timestamp, held: bool) -> StoreManifest {
        let mut store = StoreManifest {
            kind: one.entry.source.kind().to_owned(),
            engine: one.description.engine.clone(),
            engine_version: one.description.version.clone(),
            metadata: one.description.metadata.clone(),
            missing: one.reading.is_none(),
            window: TimeWindow { start: one.start, end: end.max(one.start) },
            ..StoreManifest::default()
        };
        if let Some(reading) = &one.reading {
            store.mark.clone_from(&reading.mark);
            store.consistency = match reading.live {
                false => StoreConsistency::Pinned,
                true if held => StoreConsistency::Held,
                true => StoreConsistency::Fuzzy,
            };
        }
        store
    }
}

// Ends every session that is open; in the order of `opened`.
pub(crate) async fn close(opened: &mut [Opened]) -> Vec<Option<Result<Summary>>> {
    let closing = opened.iter_mut().map(|one| {
        let reading = one.reading.take();
        let name = &one.entry.name;
        async move {
            match reading {
                Some(reading) => Some(guarded(name, reading.session.close()).await),
                None => None,
            }
        }
    });
    join_all(closing).await
}

fn remark(detail: impl Into<String>) -> Notice {
    let (collection, subject) = (String::new(), String::new());
    Notice { kind: NoticeKind::Remark, collection, subject, detail: detail.into() }
}

// A line that `sha256sum -c` reads.
fn write_sha256(path: &Path, written: &Written) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    let mut file = OutputFile::create(PathBuf::from(name), true)?;
    let archive = path.file_name().unwrap_or_default().to_string_lossy();
    file.write_all(format!("{}  {archive}\n", written.sha256).as_bytes())
        .map_err(|e| Error::io("the checksum could not be written", e).on(path.display()))?;
    file.commit()
}
