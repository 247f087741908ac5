//! The two streams: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};

use backup_kit::{Error, Result};
use serde_json::{Value, json};

use crate::{
    args::Global,
    text::{Style, plain},
};

/// The version of the JSON documents; later versions only add members.
const SCHEMA: u32 = 1;

/// Where output goes and how it looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    /// The style of standard output.
    pub(crate) style: Style,
    /// The style of standard error.
    pub(crate) notes: Style,
    /// Bars may be drawn on standard error.
    pub(crate) bars: bool,
    /// Questions can be asked and answered.
    pub(crate) asks: bool,
    /// Standard output carries the archive itself.
    pub(crate) piped: bool,
}

impl Screen {
    pub(crate) fn new(global: &Global, piped: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = !set("NO_COLOR") && !dumb && !global.json;
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            style: Style::new(colour && out),
            notes: Style::new(colour && err),
            bars: err && !dumb && !global.json && !global.quiet,
            asks: err && io::stdin().is_terminal() && !global.json,
            piped,
        }
    }

    /// The result of the command: `document` with `--json`, else `text`.
    pub(crate) fn result(&self, document: Value, text: &str) -> Result<()> {
        let out = if self.json { format!("{}\n", versioned(document)) } else { text.to_owned() };
        self.write(&out).map_err(|e| {
            Error::io("the result cannot be written", e)
                .on("standard output")
                .advise("what was done is done: check with `list` and `info`")
        })
    }

    /// A failure: a document with `--json`, else a report.
    pub(crate) fn failure(&self, error: &Error, code: u8) {
        if self.json {
            let document = json!({
                "error": {
                    "kind": error.kind().as_str(),
                    "message": error.to_string(),
                    "subject": error.subject(),
                    "causes": causes(error),
                    "advice": error.advice(),
                    "retryable": error.is_retryable(),
                },
                "exit_code": code,
            });
            if self.write(&format!("{}\n", versioned(document))).is_ok() {
                return;
            }
        }
        let mut text = format!("{} {}\n", self.notes.bad("error:"), plain(&error.to_string()));
        for cause in causes(error) {
            text.push_str(&format!("  because: {}\n", plain(&cause)));
        }
        text.push_str(&format!("  {} {}\n", self.notes.dim("next:"), plain(error.advice())));
        // Where this cannot be written either, the exit code has to do.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn write(&self, text: &str) -> io::Result<()> {
        if self.piped {
            return io::stderr().lock().write_all(text.as_bytes());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    }

    /// A line for people, beside the result.
    pub(crate) fn note(&self, line: &str) {
        if !self.json && !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{line}");
        }
    }

    /// A warning: shown also with `--quiet`.
    pub(crate) fn warn(&self, line: &str) {
        if !self.json {
            let _ =
                writeln!(io::stderr().lock(), "{} {}", self.notes.warn("warning:"), plain(line));
        }
    }

    /// Asks; only `yes` is yes.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool> {
        let ask = || {
            write!(io::stderr().lock(), "{question} Type yes to go on: ")?;
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            Ok(answer.trim() == "yes")
        };
        ask().map_err(|e: io::Error| Error::io("the question could not be asked", e))
    }
}

fn versioned(mut document: Value) -> Value {
    document["schema"] = SCHEMA.into();
    document
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}
