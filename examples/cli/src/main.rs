//! The reference command-line tool; `README.md` beside it says how it is used.

mod args;
mod commands;
mod config;
mod describe;
mod exit;
mod glob;
mod hooks;
mod progress;
mod screen;
mod select;
mod servers;
mod signals;
mod stores;
mod suggest;
mod text;

use std::{path::Path, process::ExitCode};

use backup_kit::Cancel;
use clap::Parser as _;

use self::{
    args::{Cli, Command},
    commands::Context,
    screen::Screen,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let piped = matches!(
        &cli.command,
        Command::Create(create) if create.output.as_deref() == Some(Path::new("-"))
    );
    let screen = Screen::new(&cli.global, piped);
    let cancel = Cancel::new();
    let context = Context { screen, cancel: cancel.clone(), global: &cli.global };
    let outcome = signals::watch(cancel).and_then(|()| commands::run(&context, &cli.command));
    ExitCode::from(outcome.unwrap_or_else(|error| {
        let code = exit::code(&error);
        screen.failure(&error, code);
        code
    }))
}
