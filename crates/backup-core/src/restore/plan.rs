//! What a restore is going to do, shown before it is done.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{
    Origin,
    references::References,
    report::RestoreReport,
    run::{Run, Seat},
    safety::{self, Safety},
};
use crate::{
    archive::{Lost, SalvageReport},
    cancel::Cancel,
    clock::{ArchiveId, Clock, Timestamp},
    compat::VersionVerdict,
    error::Result,
    event::Event,
    hooks::Hooks,
    journal::{Header, Journal},
    manifest::{Application, Consistency, ReferenceCount, TimeWindow},
    migrate::{MigrationInfo, MigrationPath},
    quiesce::Pauser,
    sink::{Switch, WriteMode},
};

/// How many losses are printed.
const SHOWN: usize = 20;

/// What a restore is going to do. Making it touches no store; printing it is the dry-run.
///
/// It is serialisable, so that a command line, a REST answer and a dashboard show the same.
#[derive(Serialize)]
pub struct RestorePlan {
    pub(super) restore_id: String,
    pub(super) archive: PlannedArchive,
    pub(super) versions: VersionVerdict,
    pub(super) stores: Vec<PlannedStore>,
    /// As they are in the archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<ReferenceCount>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What is lost of a damaged archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<SalvageReport>,
    pub(super) journal_dir: PathBuf,
    /// The folder that what is live is backed up into first.
    pub(super) safety_backup: Option<PathBuf>,
    pub(super) estimate: RestoreEstimate,
    #[serde(skip)]
    pub(super) work: Work,
}

// What executing takes.
pub(super) struct Work {
    pub(super) origin: Origin,
    // Store by store, as in the plan.
    pub(super) seats: Vec<Seat>,
    pub(super) references: References,
    pub(super) pauser: Pauser,
    pub(super) hooks: Hooks,
    pub(super) safety: Option<Safety>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cancel: Cancel,
}

/// The archive of a [`RestorePlan`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedArchive {
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
    /// Its identity.
    pub id: ArchiveId,
    /// When the backup began.
    pub created: Timestamp,
    /// Whose data it is.
    pub application: Application,
    /// What the user said of it.
    pub description: Option<String>,
    /// Whether something is missing in it or in doubt.
    pub partial: bool,
    /// Whether all of its stores show one moment.
    pub consistency: Consistency,
    /// How long the backup took, in seconds.
    pub took: f64,
}

/// How long a restore may take, by what the backup took: a guess, for people.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RestoreEstimate {
    /// For how long the backup read the stores that are restored, in seconds; where it read several
    /// at once, that time counts once.
    pub read: f64,
    /// How often what was read then is moved now: written, read back before the switch and after
    /// it, and read once more where what is live is backed up whole.
    pub times: u32,
    /// The one multiplied by the other.
    pub seconds: f64,
}

impl RestoreEstimate {
    /// Of a store that is only added to no more is backed up than is changed.
    pub(super) fn new(windows: impl Iterator<Item = TimeWindow>, whole: bool) -> Self {
        let mut windows: Vec<_> = windows.collect();
        windows.sort_by_key(|window| window.start);
        let (mut read, mut until) = (0.0, None);
        for TimeWindow { start, end } in windows {
            let start = until.map_or(start, |until| start.max(until));
            if end > start {
                read += start.seconds_until(end);
                until = Some(end);
            }
        }
        let times = if whole { 4 } else { 3 };
        Self { read, times, seconds: read * f64::from(times) }
    }
}

/// One store of a [`RestorePlan`]; they stand in the order in which they switch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedStore {
    /// Its name.
    pub name: String,
    /// Its name in the archive.
    pub from: String,
    /// The kind of adapter.
    pub kind: String,
    /// Replaced, or added to.
    pub mode: WriteMode,
    /// How the switch happens.
    pub switch: Switch,
    /// Whether readers see the old content or the new and never a mixture.
    pub atomic: bool,
    /// Number of collections.
    pub collections: u64,
    /// Number of records and entries.
    pub records: u64,
    /// Number of native files.
    pub native_files: u64,
    /// Bytes of the parts, uncompressed.
    pub bytes: u64,
    /// From the adapter: what will be replaced, what to expect.
    pub notes: Vec<String>,
}

impl RestorePlan {
    /// The restore's identity.
    #[must_use]
    pub fn restore_id(&self) -> &str {
        &self.restore_id
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> &PlannedArchive {
        &self.archive
    }

    /// How the archive's version stands to the one that runs.
    #[must_use]
    pub fn versions(&self) -> &VersionVerdict {
        &self.versions
    }

    /// The stores, in the order in which they will switch.
    #[must_use]
    pub fn stores(&self) -> &[PlannedStore] {
        &self.stores
    }

    /// What the archive says of the references between its records.
    #[must_use]
    pub fn references(&self) -> &[ReferenceCount] {
        &self.references
    }

    /// What the user should weigh before going on.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is lost, where this is a [salvage](crate::Stores::plan_salvage).
    #[must_use]
    pub fn lost(&self) -> Option<&SalvageReport> {
        self.lost.as_ref()
    }

    /// How long it may take.
    #[must_use]
    pub fn estimate(&self) -> &RestoreEstimate {
        &self.estimate
    }

    /// The folder of the journal: what [`resume`](crate::Stores::resume) takes after a crash.
    #[must_use]
    pub fn journal_dir(&self) -> &std::path::Path {
        &self.journal_dir
    }

    /// Restores: stages everything, verifies everything, switches every store and verifies
    /// again; or takes everything back.
    ///
    /// Dropping the future stops it like a crash: some stores may have switched and others
    /// not, and the journal stays for [`resume`](crate::Stores::resume). To stop it cleanly,
    /// use the [token](crate::RestoreOptions::cancel).
    ///
    /// # Errors
    /// With [`RepairNeeded`](crate::ErrorKind::RepairNeeded), a store could be brought neither
    /// forward nor back, and the journal stays. With
    /// [`Unfinished`](crate::ErrorKind::Unfinished) or [`Locked`](crate::ErrorKind::Locked),
    /// another restore comes first. With any other kind, live content is as before.
    pub async fn execute(self) -> Result<RestoreReport> {
        let Work { origin, seats, references, pauser, hooks, safety, clock, cancel } = self.work;
        cancel.check()?;
        let names: Vec<_> = self.stores.iter().map(|store| store.name.clone()).collect();
        let from: Vec<_> = self.stores.iter().map(|store| store.from.clone()).collect();
        let header = Header {
            journal: 1,
            restore_id: self.restore_id.clone(),
            archive: self.archive.id,
            started: clock.now(),
            stores: seats.iter().map(|seat| seat.member.clone()).collect(),
            safety: self.safety_backup.clone(),
        };
        let journal = Journal::create(&self.journal_dir, &header)?;
        pauser
            .watch
            .tell(Event::RestoreStarted { restore_id: self.restore_id.clone(), stores: names });
        let mut run = Run {
            restore_id: self.restore_id,
            archive: self.archive.id,
            seats,
            journal,
            pauser,
            lease: None,
            hooks,
            stopped: false,
            safety_backup: None,
            undo: None,
            cancel,
            lost: self.lost,
            references,
            checked: Vec::new(),
            warnings: Vec::new(),
        };
        let total = self.stores.iter().map(|store| store.bytes).sum();
        let outcome = run.forward(safety, (origin.open)(&from, &run.cancel), total).await;
        let cause = match outcome {
            Ok(report) => return Ok(report),
            Err(cause) => cause,
        };
        let left = match run.take_back().await {
            Ok(left) => left,
            Err(repair) => return Err(repair.because(cause)),
        };
        // What was begun there went with the run, unless its disk refused even that.
        if let Some(dir) = &self.safety_backup {
            safety::sweep(dir);
        }
        run.report(false, Default::default());
        let advice = match left.first() {
            None => format!("live content is as before; {}", cause.advice()),
            Some(error) => format!(
                "live content is as before; something is left behind until resume is called: \
                 {error}"
            ),
        };
        Err(cause.advise(advice))
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlannedArchive { path, id, created, application, description, .. } = &self.archive;
        // Text of the archive's may hold what a terminal obeys.
        let (name, version) = (&application.name, &application.version);
        writeln!(f, "Restore {} {}", name.escape_debug(), version.escape_debug())?;
        writeln!(f, "  from backup {id} of {created}")?;
        if let Some(path) = path {
            writeln!(f, "  in {}", path.display())?;
        }
        if let Some(description) = description {
            writeln!(f, "  \"{}\"", description.escape_debug())?;
        }
        writeln!(f, "  version {}", self.versions)?;
        let steps = self.versions.migration.iter().flat_map(MigrationPath::steps);
        for MigrationInfo { from, to, description, .. } in steps {
            writeln!(f, "  migration from {from} to {to}: {description}")?;
        }
        writeln!(f, "Stores, in the order in which they switch:")?;
        let width = self.stores.iter().map(|store| store.name.len()).max().unwrap_or(0);
        for (i, store) in self.stores.iter().enumerate() {
            let PlannedStore { name, kind, collections, records, native_files, .. } = store;
            let mode = match store.mode {
                WriteMode::Replace => "replaced",
                WriteMode::Merge => "added to",
            };
            write!(f, "  {}. {name:width$}  {kind}, {mode}: ", i + 1)?;
            if store.from != *name {
                write!(f, "from {}, ", store.from.escape_debug())?;
            }
            write!(f, "{} in {}", count(*records, "record"), count(*collections, "collection"))?;
            if *native_files > 0 {
                write!(f, ", {}", count(*native_files, "native file"))?;
            }
            writeln!(f, ", {}", size(store.bytes))?;
            let switch = match store.switch {
                Switch::Stepwise => "step by step: readers may see a mixture meanwhile",
                Switch::AtomicCopy => "at one moment, after a copy that takes time",
                Switch::AtomicPointer => "at one moment, at once",
            };
            writeln!(f, "     switches {switch}")?;
            store.notes.iter().try_for_each(|note| writeln!(f, "     note: {note}"))?;
        }
        if let Some(lost) = self.lost.as_ref().filter(|lost| lost.lost_count > 0) {
            writeln!(f, "Lost, and not restored: {}", count(lost.lost_count, "part"))?;
            for Lost { what, reason } in lost.lost.iter().take(SHOWN) {
                writeln!(f, "  {}: {}", what.escape_debug(), reason.escape_debug())?;
            }
            if lost.lost_count > SHOWN as u64 {
                writeln!(f, "  … and {} more", lost.lost_count - SHOWN as u64)?;
            }
        }
        for reference in &self.references {
            let line = reference.to_string();
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            writeln!(f, "reference in the archive: {line}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        let RestoreEstimate { read, times, seconds } = self.estimate;
        writeln!(
            f,
            "Expect about {:.1} s: {times} times the {read:.1} s that reading these stores took",
            seconds.max(0.1)
        )?;
        match &self.safety_backup {
            Some(dir) => {
                let safety = self.work.safety.as_ref();
                let some = safety.is_some_and(|safety| !safety.added_to.is_empty());
                let all = safety.is_some_and(|safety| safety.added_to.len() == self.stores.len());
                if !all {
                    writeln!(f, "What is live is backed up first, into {}", dir.display())?;
                }
                if some {
                    let dir = dir.display();
                    writeln!(f, "Records are kept before they are changed, in {dir}")?;
                }
            }
            None => writeln!(f, "What is live is not backed up first")?,
        }
        write!(f, "Nothing has been changed. Journal: {}", self.journal_dir.display())
    }
}

impl fmt::Debug for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestorePlan({})", self.restore_id)
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return count(bytes, "byte");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
