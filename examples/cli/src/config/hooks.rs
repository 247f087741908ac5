//! `stop`, `check` and `start` of `[restore]`: programs that are run around a restore.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::tree::{Fault, Section, fault};

/// How long a program may take, if nothing is said.
const USUAL: Duration = Duration::from_secs(60);

/// What is run around a restore.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Hooks {
    pub(crate) stop: Option<Hook>,
    pub(crate) check: Option<Hook>,
    pub(crate) start: Option<Hook>,
}

/// A program, where it runs, and how long it may.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hook {
    pub(crate) words: Vec<String>,
    pub(crate) folder: PathBuf,
    pub(crate) deadline: Duration,
}

impl Hooks {
    /// Those that are there.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Hook> {
        [&self.stop, &self.check, &self.start].into_iter().flatten()
    }

    pub(super) fn parse(restore: &Section<'_, '_>, folder: &Path) -> Result<Self, Fault> {
        let hook = |key| Hook::parse(restore, key, folder);
        Ok(Self { stop: hook("stop")?, check: hook("check")?, start: hook("start")? })
    }
}

impl Hook {
    fn parse(
        restore: &Section<'_, '_>,
        key: &'static str,
        folder: &Path,
    ) -> Result<Option<Self>, Fault> {
        let Some(value) = restore.get(key) else { return Ok(None) };
        let section = Section::table(key, value)?.knows(&["command", "seconds"])?;
        let command = section.required("command")?;
        let words = section.texts("command")?;
        if words.first().is_none_or(String::is_empty) {
            return Err(fault(command, "`command` names no program")
                .hint("write [\"PROGRAM\", \"ARGUMENT\", …]"));
        }
        let deadline = match section.number("seconds")? {
            Some(0) => return Err(section.fault(format!("`{key}` has no time"))),
            Some(seconds) => Duration::from_secs(seconds),
            None => USUAL,
        };
        Ok(Some(Self { words, folder: super::here(folder), deadline }))
    }
}
