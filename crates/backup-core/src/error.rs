//! The one error type: what happened, to what, and what to do next.

use std::{error::Error as StdError, fmt, io};

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn StdError + Send + Sync>;

/// What kind of failure it is, for callers that act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An operation on a file, socket or pipe failed.
    Io,
    /// The disk or the store is full.
    NoSpace,
    /// The operating system or the store refused access.
    PermissionDenied,
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists already.
    AlreadyExists,
    /// Another backup or restore holds the lock.
    Locked,
    /// The store is in use and did not become free in time.
    Busy,
    /// The store does not answer.
    Unreachable,
    /// The store, the adapter or this build cannot do what was asked.
    Unsupported,
    /// Options, configuration or arguments are wrong.
    InvalidInput,
    /// The archive is damaged, cut, or not an archive.
    Corrupt,
    /// The archive names something outside its place, or uses a forbidden construct.
    Hostile,
    /// A limit was passed.
    LimitExceeded,
    /// The archive's format, or a feature that it requires, is newer than this build.
    UnknownVersion,
    /// Data was read back and is not what was expected.
    Mismatch,
    /// The archive does not fit what it is to be restored to.
    Incompatible,
    /// A record is on both sides, and the rule is to fail then.
    Conflict,
    /// The store was changed by somebody else meanwhile.
    Changed,
    /// An earlier restore was interrupted and has to be resumed first.
    Unfinished,
    /// Neither the old nor the new state could be reached; both are kept.
    RepairNeeded,
    /// The caller cancelled.
    Cancelled,
    /// An adapter broke its contract, or panicked.
    Adapter,
}

impl ErrorKind {
    /// Name in kebab case; stable, for logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::NoSpace => "no-space",
            Self::PermissionDenied => "permission-denied",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Locked => "locked",
            Self::Busy => "busy",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
            Self::InvalidInput => "invalid-input",
            Self::Corrupt => "corrupt",
            Self::Hostile => "hostile",
            Self::LimitExceeded => "limit-exceeded",
            Self::UnknownVersion => "unknown-version",
            Self::Mismatch => "mismatch",
            Self::Incompatible => "incompatible",
            Self::Conflict => "conflict",
            Self::Changed => "changed",
            Self::Unfinished => "unfinished",
            Self::RepairNeeded => "repair-needed",
            Self::Cancelled => "cancelled",
            Self::Adapter => "adapter",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Io => "check the disk and the path, then try again",
            Self::NoSpace => "free some space or choose another place, then try again",
            Self::PermissionDenied => "check the permissions of the user that runs this",
            Self::NotFound => "check the name",
            Self::AlreadyExists => "choose another name, or ask for replacement",
            Self::Locked => "wait for the other run to end",
            Self::Busy => "end the other use of the store, then try again",
            Self::Unreachable => "check that the store runs and that its address is right",
            Self::Unsupported => "choose a mode that the store supports",
            Self::InvalidInput => "correct the options",
            Self::Corrupt => "take another backup, or salvage what is whole in this one",
            Self::Hostile => "do not use this archive",
            Self::LimitExceeded => "raise the limit if the data is trusted",
            Self::UnknownVersion => "use a newer version of backup-kit",
            Self::Mismatch => "do not rely on this copy; run the operation again",
            Self::Incompatible => "restore with a matching version",
            Self::Conflict => "choose a rule for conflicts, such as skip or keep-newer",
            Self::Changed => "run the operation again, with the application paused if need be",
            Self::Unfinished => "resume the earlier restore first",
            Self::RepairNeeded => "keep the files named here and repair by hand",
            Self::Cancelled => "run it again when convenient",
            Self::Adapter => "report this to the author of the adapter",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}{}", .subject.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
struct Inner {
    kind: ErrorKind,
    what: String,
    subject: Option<String>,
    advice: Option<String>,
    retry: bool,
    #[source]
    cause: Option<Cause>,
}

/// A failure: its [kind](Error::kind), what happened, [to what](Error::subject),
/// [what to do next](Error::advice), and its cause.
///
/// `Display` prints what happened and to what; causes follow through
/// [`source`](StdError::source); [`Error::report`] prints all of it.
///
/// ```
/// use backup_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Busy, "the database is locked")
///     .on("state.db")
///     .advise("close the other program, then run the restore again");
/// assert_eq!(error.to_string(), "the database is locked (state.db)");
/// assert_eq!(error.kind(), ErrorKind::Busy);
/// ```
pub struct Error(Box<Inner>);

impl Error {
    /// An error of `kind`; `what` is one clause in lower case without a full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            subject: None,
            advice: None,
            retry: matches!(
                kind,
                ErrorKind::Busy | ErrorKind::Unreachable | ErrorKind::Locked | ErrorKind::Changed
            ),
            cause: None,
        }))
    }

    /// An I/O error, with the kind that the operating system's code suggests.
    #[must_use]
    pub fn io(what: impl Into<String>, cause: io::Error) -> Self {
        // An error of this crate that crossed a `Read` or `Write` comes back whole.
        if cause.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            let inner = cause.into_inner().expect("checked above");
            return *inner.downcast::<Error>().expect("checked above");
        }
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::PermissionDenied
            }
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Self::new(kind, what).because(cause)
    }

    /// A broken contract of an adapter.
    #[must_use]
    pub fn adapter(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Adapter, what)
    }

    /// A verb of a session that was called where it cannot be, such as `finish` before `commit`.
    #[must_use]
    pub fn out_of_order(verb: &str, why: impl fmt::Display) -> Self {
        Self::adapter(format!("{verb} was called out of order: {why}"))
    }

    /// Says what it happened to: a path, a store, a part.
    #[must_use]
    pub fn on(mut self, subject: impl fmt::Display) -> Self {
        let subject = subject.to_string();
        self.0.subject = Some(match self.0.subject.take() {
            Some(inner) if inner != subject => format!("{subject}: {inner}"),
            _ => subject,
        });
        self
    }

    /// Says what to do next, in place of the advice of the kind.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Says whether the same call may succeed later without anything else being changed.
    #[must_use]
    pub fn retryable(mut self, retry: bool) -> Self {
        self.0.retry = retry;
        self
    }

    /// The kind, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What it happened to.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// What to do next: one clause.
    #[must_use]
    pub fn advice(&self) -> &str {
        self.0.advice.as_deref().unwrap_or(self.0.kind.advice())
    }

    /// Whether the same call may succeed later without anything else being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retry
    }

    /// What happened, to what, every cause, and what to do next, each on a line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str("\n  because: ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text.push_str("\n  next: ");
        text.push_str(self.advice());
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::io("an input or output operation failed", cause)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_io() {
        let there: io::Error = Error::new(ErrorKind::Corrupt, "bad").on("part 3").into();
        let back = Error::io("reading", there);
        assert_eq!(back.kind(), ErrorKind::Corrupt);
        assert_eq!(back.to_string(), "bad (part 3)");
    }

    #[test]
    fn a_report_says_what_why_and_next() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("could not write the archive", full).on("a.tar.gz");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            error.report(),
            "could not write the archive (a.tar.gz)\n  because: no storage space\n  next: free some space or choose another place, then try again"
        );
    }

    #[test]
    fn subjects_nest_from_the_outside_in() {
        let error = Error::adapter("x").on("table t").on("store s");
        assert_eq!(error.subject(), Some("store s: table t"));
    }
}
