//! All migrations of an application, and the ways through them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use super::{Migration, MigrationInfo, MigrationPath, change::Change};
use crate::{
    compat::{Number, Version, line, shown},
    error::{Error, ErrorKind, Result},
    record::Sha256Digest,
};

/// All migrations of an application.
///
/// A version of the application stands where the latest migration of its `major.minor` left the
/// data: with a migration to 1.4.0, the data of 1.4.3 has the form of 1.4.0. Data of a patch
/// before the first one stands at the first one.
#[derive(Clone, Default)]
pub struct Migrations {
    // In the order of their versions.
    steps: Vec<Arc<Step>>,
}

/// A checked migration.
pub(super) struct Step {
    pub(super) from: Number,
    pub(super) to: Number,
    pub(super) migration: Migration,
    pub(super) checksum: Sha256Digest,
    pub(super) back: Option<Vec<Change>>,
}

/// How migrations lead from one version to another.
#[derive(Debug)]
pub(crate) enum Route {
    /// They say nothing of it.
    Silent,
    Up(MigrationPath),
    Back(MigrationPath),
    /// They lead the other way only.
    NoReturn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Back,
}

impl Migrations {
    /// Checks the migrations, and that they fit together.
    ///
    /// # Errors
    /// A migration that does not lead from a released version to a later one; two between the
    /// same versions; one that nothing connects with the others; versions between which two
    /// shortest ways lead; a change that cannot be made.
    pub fn new(migrations: impl IntoIterator<Item = Migration>) -> Result<Self> {
        let mut steps = migrations.into_iter().map(Step::new).collect::<Result<Vec<_>>>()?;
        steps.sort_by_key(|step| (step.from, step.to));
        let all = Self { steps: steps.into_iter().map(Arc::new).collect() };
        all.refuse_duplicates()?;
        all.refuse_gaps()?;
        all.refuse_ambiguity()?;
        Ok(all)
    }

    /// Every migration, in the order of their versions.
    #[must_use]
    pub fn available(&self) -> Vec<MigrationInfo> {
        self.steps.iter().map(|step| step.info(false)).collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The shortest way between two versions; back only where every migration on it has a way
    /// back. `None` also where both have the same form of data.
    #[must_use]
    pub fn path(&self, from: &str, to: &str) -> Option<MigrationPath> {
        match self.route(&Version::parse(from)?, &Version::parse(to)?) {
            Route::Up(path) | Route::Back(path) => Some(path),
            Route::Silent | Route::NoReturn => None,
        }
    }

    pub(crate) fn route(&self, from: &Version, to: &Version) -> Route {
        let up = from.number < to.number;
        let earliest = if up { self.first_of(from.line()) } else { None };
        let (Some(start), Some(end)) = (self.place(from).or(earliest), self.place(to)) else {
            return Route::Silent;
        };
        if start == end {
            return Route::Silent;
        }
        if start < end {
            return self.search(start, end, Direction::Up).map_or(Route::Silent, Route::Up);
        }
        match self.search(start, end, Direction::Back) {
            Some(path) => Route::Back(path),
            None if self.search(end, start, Direction::Up).is_some() => Route::NoReturn,
            None => Route::Silent,
        }
    }

    fn versions(&self) -> BTreeSet<Number> {
        self.steps.iter().flat_map(|step| [step.from, step.to]).collect()
    }

    // The latest version of the same line that migrations know and that is not later.
    fn place(&self, version: &Version) -> Option<Number> {
        let latest = self.versions().range(..=version.number).next_back().copied();
        latest.filter(|found| line(*found) == version.line())
    }

    fn first_of(&self, wanted: (u64, u64)) -> Option<Number> {
        self.versions().into_iter().find(|version| line(*version) == wanted)
    }

    fn leading(&self, from: Number, direction: Direction) -> impl Iterator<Item = &Arc<Step>> {
        self.steps.iter().filter(move |step| match direction {
            Direction::Up => step.from == from,
            Direction::Back => step.to == from && step.back.is_some(),
        })
    }

    // From each version that can be reached the step before it, and how many shortest ways
    // lead there.
    fn reach(&self, start: Number, direction: Direction) -> BTreeMap<Number, Reached<'_>> {
        let mut reached = BTreeMap::from([(start, Reached { length: 0, ways: 1, by: None })]);
        let mut queue = VecDeque::from([start]);
        while let Some(at) = queue.pop_front() {
            let (length, ways) = (reached[&at].length + 1, reached[&at].ways);
            for step in self.leading(at, direction) {
                let next = if direction == Direction::Up { step.to } else { step.from };
                match reached.get_mut(&next) {
                    None => {
                        reached.insert(next, Reached { length, ways, by: Some(step) });
                        queue.push_back(next);
                    }
                    Some(known) if known.length == length => {
                        known.ways = known.ways.saturating_add(ways);
                    }
                    Some(_) => {}
                }
            }
        }
        reached
    }

    fn search(&self, start: Number, end: Number, direction: Direction) -> Option<MigrationPath> {
        let reached = self.reach(start, direction);
        let mut steps = Vec::new();
        let mut at = end;
        while let Some(step) = reached.get(&at)?.by {
            steps.push(Arc::clone(step));
            at = if direction == Direction::Up { step.from } else { step.to };
        }
        steps.reverse();
        Some(MigrationPath::new(steps, direction == Direction::Back))
    }

    fn refuse_duplicates(&self) -> Result<()> {
        let pairs = self.steps.iter().zip(self.steps.iter().skip(1));
        for (one, other) in pairs {
            if (one.from, one.to) == (other.from, other.to) {
                return Err(wrong("two migrations lead between the same versions", &one.migration)
                    .advise("make one of them"));
            }
        }
        Ok(())
    }

    // All versions have to hang together, whichever way.
    fn refuse_gaps(&self) -> Result<()> {
        let versions = self.versions();
        let Some(first) = versions.first() else { return Ok(()) };
        let mut together = BTreeSet::from([*first]);
        let mut before = 0;
        while together.len() > before {
            before = together.len();
            for step in &self.steps {
                if together.contains(&step.from) || together.contains(&step.to) {
                    together.extend([step.from, step.to]);
                }
            }
        }
        let Some(apart) = versions.iter().find(|version| !together.contains(*version)) else {
            return Ok(());
        };
        let near = together.range(..apart).next_back().unwrap_or(first);
        let what = format!(
            "there is a gap between the migrations: nothing connects {} with {}",
            shown(*near),
            shown(*apart)
        );
        Err(Error::new(ErrorKind::InvalidInput, what).advise("add the migration between them"))
    }

    fn refuse_ambiguity(&self) -> Result<()> {
        for start in self.versions() {
            for direction in [Direction::Up, Direction::Back] {
                for (end, reached) in self.reach(start, direction) {
                    if reached.ways > 1 {
                        let what = format!(
                            "{} shortest ways lead from {} to {}",
                            reached.ways,
                            shown(start),
                            shown(end)
                        );
                        return Err(Error::new(ErrorKind::InvalidInput, what)
                            .advise("remove a migration, or add one that leads there directly"));
                    }
                }
            }
        }
        Ok(())
    }
}

struct Reached<'s> {
    length: usize,
    ways: usize,
    by: Option<&'s Arc<Step>>,
}

impl Step {
    fn new(migration: Migration) -> Result<Self> {
        let number = |text: &str| {
            let version = Version::parse(text).filter(|version| !version.development);
            version.map(|version| version.number).ok_or_else(|| {
                let what = format!("{text:?} is not a released version");
                wrong(&what, &migration).advise("write it like 1.4.0")
            })
        };
        let (from, to) = (number(&migration.from)?, number(&migration.to)?);
        if from >= to {
            return Err(wrong("a migration has to lead to a later version", &migration)
                .advise("turn it round: the way back is made of the inverse of its changes"));
        }
        let place = |e: Error| e.on(label(&migration));
        migration.changes.iter().try_for_each(Change::check).map_err(place)?;
        let checksum = migration.checksum().map_err(place)?;
        Ok(Self { from, to, checksum, back: migration.back(), migration })
    }

    pub(super) fn changes(&self, reverse: bool) -> &[Change] {
        match &self.back {
            Some(back) if reverse => back,
            _ => &self.migration.changes,
        }
    }

    pub(super) fn info(&self, reverse: bool) -> MigrationInfo {
        let Migration { from, to, description, warnings, .. } = &self.migration;
        let (from, to) = if reverse { (to, from) } else { (from, to) };
        let changes = self.changes(reverse);
        let mut warnings = warnings.clone();
        if reverse {
            warnings.extend(changes.iter().filter_map(Change::loss));
        }
        MigrationInfo {
            from: from.clone(),
            to: to.clone(),
            description: description.clone(),
            warnings,
            checksum: self.checksum,
            reversible: self.back.is_some(),
            reverse,
            changes: changes.iter().map(Change::to_string).collect(),
        }
    }
}

fn label(migration: &Migration) -> String {
    format!("migration {} to {}", migration.from, migration.to)
}

fn wrong(what: &str, migration: &Migration) -> Error {
    Error::new(ErrorKind::InvalidInput, what).on(label(migration))
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|step| label(&step.migration))).finish()
    }
}
