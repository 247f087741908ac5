//! Whether an archive fits the application and the engines that are to read it.
//!
//! Pure: versions in, verdicts out. `docs/VERSIONS.md` has the rules as a table, and a test
//! holds the table against this module.

mod engine;
#[cfg(test)]
mod tests;
mod vectors;
mod version;

use std::{fmt, time::Duration};

use serde::Serialize;

pub use self::vectors::{VectorChanges, VectorDifferences};
pub(crate) use self::{
    engine::{EngineFit, engine},
    version::{Number, Version, line, shown},
};
use crate::{
    clock::Timestamp,
    migrate::{MigrationPath, Migrations, Route},
};

/// Which versions a restore accepts.
///
/// The defaults: a patch that is not newer, and whatever [migrations](Migrations) lead to; no
/// downgrade, no version under development; another version of the data schema only through a
/// migration; a warning about backups older than 90 days.
///
/// ```
/// use backup_core::{Compatibility, Migrations, VersionPolicy, Versions};
///
/// let policy = VersionPolicy::new();
/// let verdict = |archive, running| {
///     policy.judge(Versions::new(archive), Versions::new(running), &Migrations::default())
/// };
/// assert_eq!(verdict("1.4.0", "1.4.2").compatibility, Compatibility::UpgradeAvailable);
/// assert!(verdict("1.4.0", "1.4.2").allowed);
/// assert!(!verdict("1.4.2", "1.4.0").allowed);
/// assert_eq!(verdict("1.3.0", "1.4.0").compatibility, Compatibility::Incompatible);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPolicy {
    strict: bool,
    patch_downgrade: bool,
    minor_downgrade: bool,
    development: bool,
    unknown: bool,
    max_age: Option<Duration>,
    check_schema: bool,
    // The user asked for a downgrade, for one restore.
    asked: bool,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for VersionPolicy {
    fn default() -> Self {
        Self {
            strict: false,
            patch_downgrade: false,
            minor_downgrade: false,
            development: false,
            unknown: false,
            max_age: Some(90 * DAY),
            check_schema: true,
            asked: false,
        }
    }
}

impl VersionPolicy {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts only the very same version without a migration.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Accepts a newer patch of the same minor version.
    #[must_use]
    pub fn allow_patch_downgrade(mut self, allow: bool) -> Self {
        self.patch_downgrade = allow;
        self
    }

    /// Accepts a newer minor version of the same major one, and a newer patch: for an
    /// application whose older versions read what newer ones wrote. Also lets migrations lead
    /// back to an earlier minor or major version.
    #[must_use]
    pub fn allow_minor_downgrade(mut self, allow: bool) -> Self {
        self.minor_downgrade = allow;
        self
    }

    /// Accepts versions under development, such as `1.4.0-rc.1` and `0.2.1dev1`; they are
    /// compared as the version that they lead to.
    #[must_use]
    pub fn allow_development(mut self, allow: bool) -> Self {
        self.development = allow;
        self
    }

    /// Accepts versions that cannot be compared.
    #[must_use]
    pub fn allow_unknown(mut self, allow: bool) -> Self {
        self.unknown = allow;
        self
    }

    /// Warns of backups that are older; `None` for never.
    #[must_use]
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// Refuses another version of the application's data schema where no migration leads to
    /// it; otherwise it is a warning.
    #[must_use]
    pub fn check_schema(mut self, check: bool) -> Self {
        self.check_schema = check;
        self
    }

    /// This policy, for a restore whose user allows a downgrade: a newer patch, a way back
    /// through migrations, a native part of a newer engine.
    #[must_use]
    pub(crate) fn asked(mut self, asked: bool) -> Self {
        self.asked |= asked;
        self
    }

    /// Whether an archive's versions fit those that run.
    #[must_use]
    pub fn judge(
        &self,
        archive: Versions<'_>,
        running: Versions<'_>,
        migrations: &Migrations,
    ) -> VersionVerdict {
        let mut verdict = VersionVerdict::new(&archive, &running);
        let parsed = (Version::parse(archive.application), Version::parse(running.application));
        match parsed {
            _ if archive.application == running.application => same(&mut verdict, &parsed.0),
            (Some(theirs), Some(ours)) => {
                self.numbers(&mut verdict, &theirs, &ours, migrations);
                self.unreleased(&mut verdict, &theirs, &ours);
            }
            _ => self.incomparable(&mut verdict),
        }
        self.data_schema(&mut verdict, &archive, &running);
        verdict
    }

    fn numbers(
        &self,
        verdict: &mut VersionVerdict,
        theirs: &Version,
        ours: &Version,
        migrations: &Migrations,
    ) {
        match migrations.route(theirs, ours) {
            Route::Up(path) => verdict.migrate(path),
            Route::Back(path) => {
                let same_line = theirs.line() == ours.line();
                let allowed =
                    self.asked || self.minor_downgrade || (same_line && self.patch_downgrade);
                verdict.migrate(path);
                if !allowed {
                    verdict.refuse("this leads back to an earlier version", ALLOW_DOWNGRADE);
                }
            }
            Route::NoReturn => {
                verdict.compatibility = Compatibility::Incompatible;
                let next = format!(
                    "update the application to {}, or use an older backup",
                    shown(theirs.number)
                );
                verdict.refuse("the migrations between the two versions have no way back", next);
            }
            Route::Silent => self.rule(verdict, theirs, ours),
        }
    }

    // Without migrations.
    fn rule(&self, verdict: &mut VersionVerdict, theirs: &Version, ours: &Version) {
        let versions = format!("{} to {}", shown(theirs.number), shown(ours.number));
        let (their_line, our_line) = (theirs.line(), ours.line());
        if their_line == our_line {
            let (compatibility, reason) = match theirs.number.cmp(&ours.number) {
                std::cmp::Ordering::Equal => (Compatibility::Compatible, "it is the same patch"),
                std::cmp::Ordering::Less => {
                    (Compatibility::UpgradeAvailable, "it is an earlier patch")
                }
                std::cmp::Ordering::Greater => (Compatibility::Downgrade, "it is a newer patch"),
            };
            verdict.compatibility = compatibility;
            verdict.reasons.push(format!("{reason} of {}.{}", our_line.0, our_line.1));
            let allowed = self.asked || self.patch_downgrade || self.minor_downgrade;
            if compatibility == Compatibility::Downgrade && !allowed {
                verdict.refuse("a downgrade was not allowed", ALLOW_DOWNGRADE);
            }
        } else if self.minor_downgrade && their_line.0 == our_line.0 && their_line > our_line {
            verdict.compatibility = Compatibility::Downgrade;
            verdict.reasons.push("it is a newer minor version, which the policy allows".into());
        } else {
            verdict.compatibility = Compatibility::Incompatible;
            let part = if their_line.0 == our_line.0 { "minor" } else { "major" };
            let reason = format!("it is another {part} version, and no migration leads there");
            let next = if theirs.number < ours.number {
                format!(
                    "register migrations from {versions}, or restore with version {}",
                    shown(theirs.number)
                )
            } else {
                format!("update the application to {}", shown(theirs.number))
            };
            verdict.refuse(reason, next);
        }
        if self.strict && theirs.number != ours.number {
            let next = format!("restore with version {}", shown(theirs.number));
            verdict.refuse("the policy is strict: only the same version is accepted", next);
        }
    }

    fn unreleased(&self, verdict: &mut VersionVerdict, theirs: &Version, ours: &Version) {
        let which = match (theirs.development, ours.development) {
            (false, false) => return,
            (true, false) => "the archive's version is",
            (false, true) => "this version is",
            (true, true) => "both versions are",
        };
        if self.development {
            verdict.reasons.push(format!("{which} under development, and compared as its patch"));
        } else {
            let next =
                "restore with that very version, or let the policy allow development versions";
            verdict.refuse(format!("{which} under development"), next);
        }
    }

    fn incomparable(&self, verdict: &mut VersionVerdict) {
        verdict.compatibility = Compatibility::Unknown;
        let reason = "they cannot be compared: versions are written like 1.4.0";
        if self.unknown {
            verdict.reasons.push(reason.into());
            verdict.warnings.push("versions that cannot be compared are accepted".into());
        } else {
            let next = "restore with the version that wrote the archive, or let the policy allow \
                        unknown versions";
            verdict.refuse(reason, next);
        }
    }

    fn data_schema(
        &self,
        verdict: &mut VersionVerdict,
        archive: &Versions<'_>,
        running: &Versions<'_>,
    ) {
        let what = match (archive.data_schema, running.data_schema) {
            (Some(theirs), Some(ours)) if theirs != ours => format!(
                "the data schema is {} in the archive and {ours} here",
                theirs.escape_debug()
            ),
            (None, Some(ours)) => {
                let what = format!("the archive names no data schema; this is {ours}");
                verdict.warnings.push(what);
                return;
            }
            _ => return,
        };
        if verdict.migration.is_some() {
            verdict.reasons.push(what);
        } else if self.check_schema {
            verdict.compatibility = Compatibility::Incompatible;
            let next = "register a migration between the two versions of the application";
            verdict.refuse(what, next);
        } else {
            verdict.warnings.push(what);
        }
    }

    /// What there is to say of a backup's age.
    #[must_use]
    pub fn age(&self, created: Timestamp, now: Timestamp) -> Option<String> {
        let micros = now.as_micros().saturating_sub(created.as_micros());
        let age = Duration::from_micros(micros.unsigned_abs());
        let days = age.as_secs() / DAY.as_secs();
        if micros < 0 {
            let far = age > DAY;
            return far.then(|| format!("the backup is dated {days} days in the future"));
        }
        let old = self.max_age.is_some_and(|most| age > most);
        old.then(|| format!("the backup is {days} days old"))
    }
}

const ALLOW_DOWNGRADE: &str = "allow the downgrade, or update the application";

// The same text is the same version, whatever it means.
fn same(verdict: &mut VersionVerdict, parsed: &Option<Version>) {
    verdict.reasons.clear();
    verdict.reasons.push(format!("the archive was written by this version, {}", verdict.running));
    if parsed.is_none() {
        let running = &verdict.running;
        verdict.warnings.push(format!(
            "{running} is no version that can be compared: another one will be refused"
        ));
    }
}

/// The versions of one side: an archive's, or those of the application that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Versions<'a> {
    /// Of the application.
    pub application: &'a str,
    /// Of its data schema.
    pub data_schema: Option<&'a str>,
}

impl<'a> Versions<'a> {
    /// The version of an application.
    #[must_use]
    pub fn new(application: &'a str) -> Self {
        Self { application, data_schema: None }
    }

    /// Adds the version of its data schema.
    #[must_use]
    pub fn data_schema(mut self, version: impl Into<Option<&'a str>>) -> Self {
        self.data_schema = version.into();
        self
    }
}

/// How an archive's version stands to the one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compatibility {
    /// The same.
    Compatible,
    /// An earlier patch: the application brings the data up to date as after an update.
    UpgradeAvailable,
    /// A newer one, which may have written what this one does not understand.
    Downgrade,
    /// Another one, and migrations lead there.
    NeedsMigration,
    /// Another one, and nothing leads there.
    Incompatible,
    /// Versions that cannot be compared.
    Unknown,
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compatible => "compatible",
            Self::UpgradeAvailable => "upgrade available",
            Self::Downgrade => "downgrade",
            Self::NeedsMigration => "needs migration",
            Self::Incompatible => "incompatible",
            Self::Unknown => "unknown",
        })
    }
}

/// Whether an archive may be restored by the application that runs, why, and what to do next.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VersionVerdict {
    /// The version in the archive.
    pub archive: String,
    /// The version that runs.
    pub running: String,
    /// How they stand to each other.
    pub compatibility: Compatibility,
    /// Whether the policy lets the restore happen.
    pub allowed: bool,
    /// Why, one clause each.
    pub reasons: Vec<String>,
    /// What to weigh before going on.
    pub warnings: Vec<String>,
    /// What to do next: one clause.
    pub next_step: String,
    /// The migrations that lead from one to the other.
    pub migration: Option<MigrationPath>,
}

impl VersionVerdict {
    fn new(archive: &Versions<'_>, running: &Versions<'_>) -> Self {
        let shown = |text: &str| text.escape_debug().to_string();
        let (theirs, ours) = (shown(archive.application), shown(running.application));
        Self {
            reasons: vec![format!("the archive was written by {theirs}, this is {ours}")],
            archive: theirs,
            running: ours,
            compatibility: Compatibility::Compatible,
            allowed: true,
            warnings: Vec::new(),
            next_step: "restore it".into(),
            migration: None,
        }
    }

    /// A verdict on versions of two applications, so far without objection.
    pub(crate) fn incomparable(archive: &str, running: &str) -> Self {
        let mut verdict = Self::new(&Versions::new(archive), &Versions::new(running));
        verdict.compatibility = Compatibility::Unknown;
        verdict
    }

    fn migrate(&mut self, path: MigrationPath) {
        self.compatibility = Compatibility::NeedsMigration;
        self.reasons.push(format!("migrations lead there: {path}"));
        self.warnings.extend(path.steps().into_iter().flat_map(|step| step.warnings));
        self.migration = Some(path);
    }

    /// Says no. The first next step stays: it is about the weightiest reason.
    pub(crate) fn refuse(&mut self, reason: impl Into<String>, next: impl Into<String>) {
        if self.allowed {
            self.next_step = next.into();
        }
        self.allowed = false;
        self.reasons.push(reason.into());
    }
}

impl fmt::Display for VersionVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = if self.allowed { "" } else { ", refused" };
        write!(f, "{}{refused}: {}", self.compatibility, self.reasons.join("; "))
    }
}
