//! One module a command: each turns arguments into calls of the library, and what comes back
//! into text and JSON.

mod create;
mod diff;
mod drill;
mod extract;
mod info;
mod list;
mod migrations;
mod restore;
mod salvage;
mod validate;

use std::path::Path;

use backup_kit::{Cancel, Catalog, Error, ErrorKind, Result, archive::Archive};

use crate::{
    args::{self, Command, Global},
    config::Config,
    screen::Screen,
};

/// What every command has at hand.
pub(crate) struct Context<'a> {
    pub(crate) screen: Screen,
    pub(crate) cancel: Cancel,
    pub(crate) global: &'a Global,
}

/// Runs a command; its exit code.
pub(crate) fn run(context: &Context<'_>, command: &Command) -> Result<u8> {
    match command {
        Command::Create(args) => create::run(context, args),
        Command::List(args) => list::run(context, args),
        Command::Info(args) => info::run(context, args),
        Command::Validate(args) => validate::run(context, args),
        Command::Diff(args) => diff::run(context, args),
        Command::Restore(args) => restore::restore(context, args),
        Command::Resume => restore::resume(context),
        Command::Migrations(args::Migrations::List) => migrations::list(context),
        Command::Extract(args) => extract::run(context, args),
        Command::Salvage(args) => salvage::run(context, args),
    }
}

impl Context<'_> {
    fn config(&self) -> Result<Config> {
        Config::load(&self.global.config)
    }

    fn catalog(&self, config: &Config) -> Result<Catalog> {
        match &config.catalog {
            Some(dir) => Catalog::open(dir),
            None => Err(Error::new(ErrorKind::InvalidInput, "the configuration names no catalog")
                .on(self.global.config.display())
                .advise("add [catalog] with a path, or name a file")),
        }
    }

    /// Opens what was named: a file, an id of the catalog, or `latest`.
    fn open(&self, name: &str) -> Result<Archive> {
        if name != "latest" && Path::new(name).is_file() {
            return Archive::open(name).map_err(|e| e.on(name));
        }
        match self.config() {
            // What looks like a file is missed as a file, whether there is a catalog or not.
            Err(e) if e.kind() == ErrorKind::NotFound && name.contains(['/', '.']) => {
                Archive::open(name).map_err(|e| e.on(name))
            }
            config => self.catalog(&config?)?.get(name),
        }
    }
}

/// Where an archive is, as it is shown.
fn place(archive: &Archive, name: &str) -> String {
    archive.path().map_or_else(|| name.to_owned(), |path| path.display().to_string())
}
