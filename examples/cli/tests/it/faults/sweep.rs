//! The Nth call, then the one after it, until a run ends without having been struck.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{
    scene::Scene,
    strace::{Blow, Place, Strike, Traced, strike},
};

/// Many runs of one command, each with one call struck.
pub(super) struct Sweep<'a> {
    name: &'a str,
    args: &'a [&'a str],
    check: fn(&Scene, &Traced),
    start: Instant,
    points: BTreeMap<&'static str, usize>,
    steps: BTreeMap<String, usize>,
    undisturbed: BTreeSet<Place>,
    struck: BTreeSet<Place>,
    failed: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// `check` looks at what became of each run.
    pub(super) fn new(name: &'a str, args: &'a [&'a str], check: fn(&Scene, &Traced)) -> Self {
        Self {
            name,
            args,
            check,
            start: Instant::now(),
            points: BTreeMap::new(),
            steps: BTreeMap::new(),
            undisturbed: BTreeSet::new(),
            struck: BTreeSet::new(),
            failed: Vec::new(),
        }
    }

    /// Strikes the calls of a name, one after the other, each in a scene of its own.
    pub(super) fn row(&mut self, call: &'static str, blow: Blow, scene: impl Fn() -> Scene) {
        for nth in (1..).step_by(stride(call)) {
            let scene = scene();
            let here = Strike::new(call, nth, blow);
            let traced = strike(&scene.world, self.args, &here);
            let (hits, others): (Vec<_>, Vec<_>) = traced.places().partition(|(_, hit)| *hit);
            if hits.is_empty() && !traced.killed() {
                // A resume may also have taken a restore back.
                assert!(matches!(traced.ran.code, Some(0 | 1)), "{here:?}: {traced:#?}");
                self.undisturbed.extend(others.into_iter().map(|(place, _)| place));
                break;
            }
            self.struck.extend(hits.into_iter().map(|(place, _)| place));
            *self.points.entry(call).or_default() += 1;
            *self.steps.entry(scene.step()).or_default() += 1;
            if catch_unwind(AssertUnwindSafe(|| (self.check)(&scene, &traced))).is_err() {
                let what = (&traced.ran, traced.hits());
                self.failed.push(format!("{here:?}: {what:#?}"));
            }
        }
    }

    /// Says how many calls were struck, and how far the journal was. All points are tried
    /// before any that went wrong is an error.
    pub(super) fn end(self) {
        let Self { name, start, points, steps, undisturbed, struck, failed, .. } = self;
        let number: usize = points.values().sum();
        let mut line = format!("{name}: {number} points in {} s", start.elapsed().as_secs());
        if !struck.is_empty() {
            let (hit, all) = (struck.intersection(&undisturbed).count(), undisturbed.len());
            line.push_str(&format!(", {hit} of the {all} calls of undisturbed runs"));
        }
        line.push_str(&format!(": {points:?}, journal at {steps:?}\n"));
        // Not through the macro: the harness would keep it to itself.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(failed.is_empty(), "{name}: {} failed:\n{}", failed.len(), failed.join("\n"));
    }
}

/// Whether no call is to be left out.
pub(super) fn full() -> bool {
    std::env::var_os("BACKUP_KIT_SWEEP").is_some_and(|value| value == "full")
}

fn stride(call: &str) -> usize {
    match call {
        // Most are of one byte in a file that SQLite makes anew, or of what was only read.
        "pwrite64" | "close" if !full() => 5,
        _ => 1,
    }
}
