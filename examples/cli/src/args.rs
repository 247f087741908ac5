//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const CODES: &str = "\
Exit codes:
  0  done                     10  something that was named does not exist
  1  failed                   11  locked by another run
  2  wrong usage              130, 143  interrupted, and cleaned up
  3  done, but partial        any other: failed
  4  compared, and different";

/// One consistent backup of several stores in one archive, restored completely or not at all.
#[derive(Debug, Parser)]
#[command(name = "backup-kit", version, after_help = CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The configuration: which stores, which catalog
    #[arg(short, long, global = true, value_name = "FILE", default_value = "backup.toml")]
    pub(crate) config: PathBuf,

    /// One JSON document on standard output, events as JSON lines on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// More about each step, store and part
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Back up the stores into a new archive
    Create(Create),
    /// List the archives of the catalog, or the parts of one
    List(List),
    /// Show what is in an archive
    Info(Info),
    /// Check that an archive is whole and undamaged
    #[command(alias = "verify")]
    Validate(Validate),
    /// Compare an archive with another one, or with what the stores hold now
    Diff(Diff),
    /// Put an archive back into its stores, completely or not at all
    Restore(Restore),
    /// Finish or take back a restore that was interrupted
    Resume,
    /// What leads from the data of one version of the application to that of another
    #[command(subcommand)]
    Migrations(Migrations),
    /// Copy parts of an archive into a folder
    Extract(Extract),
    /// Copy whatever is whole in a damaged archive into a folder
    Salvage(Salvage),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What to remember about it
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// Take only stores of these names; needed for one with `default = false`; may be repeated
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) include: Vec<String>,

    /// Leave out stores of these names; may be repeated
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub(crate) exclude: Vec<String>,

    /// Take only what this says, such as project=alpha, store=state or collection=state/notes: see
    /// README.md; may be repeated, and all apply
    #[arg(long, value_name = "EXPR")]
    pub(crate) select: Vec<String>,

    /// Write to this file instead of the catalog; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Do not ask: an output that exists is replaced, a restore goes ahead
    #[arg(short, long, alias = "yes", visible_alias = "yes", short_alias = 'y')]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Lists the parts of this archive instead: a file, an id of the catalog, or `latest`
    #[arg(value_name = "ARCHIVE", conflicts_with = "sort")]
    pub(crate) archive: Option<String>,

    /// In which order
    #[arg(long, value_enum, default_value = "timestamp")]
    pub(crate) sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// By file name
    Name,
    /// Oldest first
    Timestamp,
    /// Smallest first
    Size,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) archive: Archive,
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    #[command(flatten)]
    pub(crate) archive: Archive,

    /// Only trailer, root, index and sizes; not the content
    #[arg(long, conflicts_with = "check_files")]
    pub(crate) quick: bool,

    /// Every hash of every part: the default
    #[arg(long)]
    pub(crate) check_files: bool,

    /// Also restore it into temporary stores, compare, and remove them
    #[arg(long, conflicts_with = "quick")]
    pub(crate) drill: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) archive: Archive,

    /// The other archive; without it, what the stores of the configuration hold now
    #[arg(value_name = "OTHER")]
    pub(crate) other: Option<String>,

    /// How many keys are listed of each kind of difference; all are counted
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) keys: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) archive: Archive,

    /// Show what would be done, and touch nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// Take a newer patch of the application, and go back through migrations
    #[arg(long)]
    pub(crate) allow_downgrade: bool,

    #[command(flatten)]
    pub(crate) changes: Changes,

    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// What happens to the records between the archive and the stores.
#[derive(Debug, Args)]
#[command(next_help_heading = "On the way")]
pub(crate) struct Changes {
    /// Only what fits, such as `store=state`, `project=alpha` or `created>=2026-01-01`; may be
    /// repeated. It is added to what the stores hold
    #[arg(long, value_name = "EXPR")]
    pub(crate) select: Vec<String>,

    /// Another name for a store, or for a collection in it, of the form `store/old=new`; may be
    /// repeated
    #[arg(long, value_name = "OLD=NEW")]
    pub(crate) map: Vec<String>,

    /// Another name for a project; may be repeated
    #[arg(long, value_name = "OLD=NEW")]
    pub(crate) rename_project: Vec<String>,

    /// Add to what the stores hold, instead of replacing it
    #[arg(long)]
    pub(crate) merge: bool,

    /// What becomes of records that are on both sides: skip, overwrite, merge, keep-newer,
    /// keep-older, keep-both or fail; of one collection with `store/collection=RULE`; may be
    /// repeated. Implies --merge
    #[arg(long, value_name = "RULE")]
    pub(crate) conflict: Vec<String>,

    /// Leave a vector of a collection of the archive out, such as `vectors/docs=text`, or
    /// `vectors/docs=` for one without a name; may be repeated
    #[arg(long, value_name = "STORE/COLLECTION=VECTOR")]
    pub(crate) drop_vector: Vec<String>,

    /// Leave out records with the content of an earlier one of the same collection
    #[arg(long)]
    pub(crate) skip_duplicates: bool,

    /// Restore what is whole in a damaged archive, and name what is lost: exit code 3
    #[arg(long)]
    pub(crate) salvage: bool,

    /// Go on where references dangle that did not in the archive, also required ones
    #[arg(long)]
    pub(crate) allow_dangling: bool,

    /// Back up whole also what is only added to: by default the records that are changed are kept
    #[arg(long, conflicts_with = "no_safety_backup")]
    pub(crate) whole_safety_backup: bool,

    /// Do not back up first what is live
    #[arg(long)]
    pub(crate) no_safety_backup: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrations {
    /// List the migrations of the configuration
    List,
}

#[derive(Debug, Args)]
pub(crate) struct Extract {
    #[command(flatten)]
    pub(crate) archive: Archive,

    /// The folder; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,

    /// Only parts whose path matches; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) part: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Salvage {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The folder; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Archive {
    /// A file, an id of the catalog, or `latest`
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn force_and_yes_are_one() {
        for word in ["--force", "--yes", "-f", "-y"] {
            let cli = Cli::parse_from(["backup-kit", "restore", "latest", word]);
            let Command::Restore(restore) = cli.command else { panic!("{word}") };
            assert!(restore.ask.force, "{word}");
        }
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for line in ["backup-kit -c x.toml --json list", "backup-kit list --json -c x.toml"] {
            let cli = Cli::parse_from(line.split(' '));
            assert!(cli.global.json);
            assert_eq!(cli.global.config, PathBuf::from("x.toml"));
        }
    }
}
