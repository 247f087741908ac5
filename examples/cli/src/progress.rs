//! How far a run is: a bar on a terminal, JSON lines with `--json`, else nothing.

use std::{
    io::{self, Write as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use backup_kit::{Event, RestoreStep};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::{screen::Screen, text::plain};

/// Counts bytes of one run.
pub(crate) struct Meter {
    screen: Screen,
    bar: ProgressBar,
    state: Mutex<State>,
}

struct State {
    done: u64,
    told: Instant,
}

impl Meter {
    /// Begins: `verb` is what is done with `total` bytes.
    pub(crate) fn start(screen: &Screen, verb: &'static str, total: Option<u64>) -> Self {
        let meter = Self::hidden(screen, verb);
        if let Some(total) = total {
            meter.total(total);
        }
        meter.show();
        meter
    }

    /// Begins, and waits for [`show`](Self::show) before anything is drawn.
    pub(crate) fn hidden(screen: &Screen, verb: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
            .with_style(style("{msg:12} {spinner} {binary_bytes:>10}  {binary_bytes_per_sec}"))
            .with_message(verb);
        let state = Mutex::new(State { done: 0, told: Instant::now() });
        Self { screen: *screen, bar, state }
    }

    /// Draws from now on, where bars are wanted.
    pub(crate) fn show(&self) {
        if self.screen.bars {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(120));
        }
    }

    fn total(&self, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style(
                "{msg:12} [{bar:32}] {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}, {eta} left",
            ));
        }
    }

    /// More bytes are done.
    pub(crate) fn advance(&self, bytes: u64) {
        let mut state = self.state.lock().expect("nothing panics while it is held");
        state.done += bytes;
        self.bar.set_position(state.done);
        // Few enough to be read, and to cost nothing.
        if self.screen.json && state.told.elapsed() >= Duration::from_millis(200) {
            state.told = Instant::now();
            tell(&json!({"event": "progress", "done": state.done, "total": self.bar.length()}));
        }
    }

    /// Shows what the engine says.
    pub(crate) fn event(&self, event: &Event) {
        if self.screen.json {
            tell(&event.to_json());
            return;
        }
        match event {
            Event::Part { done, total, .. } | Event::Progress { done, total } => {
                if let Some(total) = total {
                    self.total(*total);
                }
                self.bar.set_position(*done);
            }
            Event::Notice(notice) => {
                let subject = &notice.notice;
                let mut place = vec![&*notice.store, &subject.collection, &subject.subject];
                place.retain(|part| !part.is_empty());
                place.dedup();
                let line = format!("{}: {}", place.join(": "), notice.notice.detail);
                self.above(|screen| {
                    if notice.notice.kind.makes_partial() {
                        screen.warn(&line);
                    } else {
                        screen.note(&plain(&line));
                    }
                });
            }
            Event::StoreRead { store } if self.screen.verbose => {
                self.above(|screen| screen.note(&format!("read {}", plain(store))));
            }
            Event::Resumed { held: false } => {
                self.above(|screen| screen.warn("the pause of the application ran out"));
            }
            Event::Step { step, .. } => self.step(step),
            _ => {}
        }
    }

    /// What is written down before a step tells what comes next.
    fn step(&self, step: &RestoreStep) {
        let (next, store) = match step {
            RestoreStep::Staged => ("comparing what is staged", ""),
            RestoreStep::Committing { store } => ("switching", store.as_str()),
            RestoreStep::Committed => ("comparing what is live", ""),
            RestoreStep::Finishing => ("tidying up", ""),
            RestoreStep::Undoing => ("taking back", ""),
            _ => return,
        };
        let next = plain(format!("{next} {store}").trim_end());
        if self.screen.verbose {
            self.above(|screen| screen.note(&next));
        }
        self.bar.set_style(style("{msg} {spinner}"));
        self.bar.set_message(next);
    }

    fn above(&self, write: impl FnOnce(&Screen)) {
        self.bar.suspend(|| write(&self.screen));
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> ")
}

/// One line of JSON on standard error.
fn tell(line: &impl std::fmt::Display) {
    // A reader that went away must not end a backup.
    let _ = writeln!(io::stderr().lock(), "{line}");
}
