//! What the suite found.

use std::fmt;

/// What the suite found, case by case.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub(crate) cases: Vec<Case>,
}

/// One case of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What is worth knowing also of a case that passed: what the store refused, what the
    /// harness left out.
    pub notes: Vec<String>,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not run: the adapter does not declare a capability, or the harness has no hook for it.
    Skipped(String),
    /// Otherwise.
    Failed(String),
}

impl Report {
    /// Every case that was run or skipped, in order.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The names of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// The names of the cases that were skipped.
    #[must_use]
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    fn names(&self, wanted: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        self.cases.iter().filter(|case| wanted(&case.outcome)).map(|case| case.name).collect()
    }
}

/// A line for each case, failures with what was found.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            match &case.outcome {
                Outcome::Passed => writeln!(f, "passed   {}", case.name)?,
                Outcome::Skipped(why) => writeln!(f, "SKIPPED  {}: {why}", case.name)?,
                Outcome::Failed(what) => writeln!(f, "FAILED   {}: {what}", case.name)?,
            }
            for note in &case.notes {
                writeln!(f, "           {note}")?;
            }
        }
        Ok(())
    }
}
