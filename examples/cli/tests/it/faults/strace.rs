//! Runs of the tool under strace.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::world::{Ran, World, skipped};

/// Calls that change a file system or make a change last.
pub(super) const CHANGES: [&str; 21] = [
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "symlinkat",
    "ftruncate",
    "fallocate",
    "copy_file_range",
    "fchmod",
    "utimensat",
];

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Blow {
    Eio,
    Enospc,
    Kill,
}

/// One call that is struck: the `nth` of its name in each thread.
#[derive(Debug, Clone)]
pub(super) struct Strike {
    pub(super) call: &'static str,
    pub(super) nth: usize,
    pub(super) blow: Blow,
    /// Only calls on this file count.
    pub(super) only: Option<PathBuf>,
}

/// A run under strace.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) ran: Ran,
    /// The calls in their order, as `call(…) = result`, with the paths of descriptors.
    pub(super) calls: Vec<String>,
}

/// A call without what differs from run to run, and the how manieth it is of those.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(String, usize);

/// Whether strace can be used; else the test is skipped, aloud.
pub(super) fn usable() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let probe = Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).output();
        let works = probe.is_ok_and(|output| output.status.success());
        if !works {
            skipped("failing system calls: strace is missing or not allowed");
        }
        works
    })
}

impl Strike {
    pub(super) fn new(call: &'static str, nth: usize, blow: Blow) -> Self {
        Self { call, nth, blow, only: None }
    }

    pub(super) fn on(self, path: impl Into<PathBuf>) -> Self {
        Self { only: Some(path.into()), ..self }
    }
}

/// Runs the tool and watches these calls.
pub(super) fn watch(world: &World, args: &[&str], calls: &[&str]) -> Traced {
    run(world, args, &["-e".into(), format!("trace={}", calls.join(","))])
}

/// Runs the tool with one call struck.
pub(super) fn strike(world: &World, args: &[&str], strike: &Strike) -> Traced {
    let blow = match strike.blow {
        Blow::Eio => "error=EIO",
        Blow::Enospc => "error=ENOSPC",
        Blow::Kill => "signal=KILL",
    };
    let Strike { call, nth, .. } = strike;
    let mut options = vec!["-e".into(), format!("trace={call}")];
    options.extend(["-e".into(), format!("inject={call}:{blow}:when={nth}")]);
    // Much faster; a signal is not delivered with it.
    if strike.blow != Blow::Kill {
        options.push("--seccomp-bpf".into());
    }
    if let Some(path) = &strike.only {
        options.extend(["-P".into(), path.to_str().unwrap().into()]);
    }
    run(world, args, &options)
}

fn run(world: &World, args: &[&str], options: &[String]) -> Traced {
    let log = world.path("strace.log");
    let tool = world.command(args);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-s", "0", "-o"]).arg(&log).args(options);
    strace.arg(tool.get_program()).args(tool.get_args());
    strace.current_dir(tool.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    // Copies of databases wait there.
    let spool = world.path("spool");
    fs::create_dir_all(&spool).unwrap();
    let ran = strace.env("TMPDIR", spool).output().unwrap().into();
    let calls = whole(&fs::read_to_string(&log).unwrap(), world.folder());
    fs::remove_file(log).unwrap();
    Traced { ran, calls }
}

/// The log with interrupted lines joined, without process ids and the world's path.
fn whole(log: &str, root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let mut begun = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or((line, ""));
        let call = call.trim_start().replace(&format!("{root}/"), "").replace(root, ".");
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread.to_owned(), start.to_owned());
        } else if let Some((_, end)) = call.split_once(" resumed>") {
            calls.push(begun.remove(thread).unwrap_or_default() + end);
        } else {
            calls.push(call);
        }
    }
    calls.extend(begun.into_values());
    calls
}

impl Traced {
    /// The calls that failed because they were struck.
    pub(super) fn hits(&self) -> Vec<&str> {
        let hits = self.calls.iter().filter(|call| call.contains("(INJECTED"));
        hits.map(String::as_str).collect()
    }

    /// Every call, and whether it was made to fail.
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, bool)> {
        let mut seen = HashMap::new();
        self.calls.iter().filter_map(move |call| {
            let (what, result) = call.rsplit_once(" = ")?;
            let what = alike(what.trim_end());
            let times = seen.entry(what.clone()).or_insert(0);
            *times += 1;
            Some((Place(what, *times), result.contains("(INJECTED")))
        })
    }

    pub(super) fn killed(&self) -> bool {
        self.ran.code.is_none()
    }

    /// Case 40: whoever calls `fsync` again after a failure is told that all is well, and what
    /// was not written stays so.
    #[track_caller]
    pub(super) fn no_failed_sync_is_passed_over(&self) {
        let syncs = self.calls.iter().filter(|call| call.contains("sync("));
        let pairs: Vec<_> = std::iter::once("").chain(syncs.map(String::as_str)).collect();
        let failed = |pair: &[&str]| pair[1].contains("(INJECTED") && !of_sqlite(pair[0], pair[1]);
        let told = self.ran.code != Some(0) || self.ran.err.contains("left behind");
        assert!(told || !pairs.windows(2).any(failed), "a sync failed, and nobody is told");
    }

    /// Whether only what the tool says went wrong.
    pub(super) fn only_words(&self) -> bool {
        self.hits().iter().all(|call| ["(1<", "(2<"].iter().any(|fd| call.contains(fd)))
    }
}

/// A call without identifiers and numbers.
fn alike(call: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    for c in call.chars().chain([' ']) {
        if c.is_ascii_hexdigit() || c == '-' {
            run.push(c);
            continue;
        }
        let number = run.len() >= 8 || run.bytes().all(|b| b.is_ascii_digit());
        text.push_str(if number && !run.is_empty() { "*" } else { &run });
        run.clear();
        text.push(c);
    }
    text
}

/// Syncs whose failure SQLite may keep to itself: of the folder of a log that it has just made,
/// and of a checkpoint. The log, which was synced at the commit, then stays.
fn of_sqlite(before: &str, sync: &str) -> bool {
    const LOG: &str = "<state.db-wal>";
    let after_log = before.contains(LOG) && (sync.contains("<.>") || sync.contains(LOG));
    after_log || sync.contains("<state.db>")
}
