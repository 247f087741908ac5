//! `backup.toml`: whose data, which catalog, which stores.
//!
//! Read from the document's own tree and not through derived types, so that every fault has its
//! line, and an unknown key a suggestion. Messages never quote a value of an unknown key or a
//! line of the file: it might hold a secret.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use backup_kit::{Error, ErrorKind, Result};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The configuration; paths are resolved against the folder of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The folder of the file.
    pub(crate) folder: PathBuf,
    pub(crate) app: App,
    pub(crate) catalog: Option<PathBuf>,
    pub(crate) stores: Vec<Store>,
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One `[[store]]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Unreachable is a warning and a partial archive.
    pub(crate) optional: bool,
    /// Taken without being named by `--include`.
    pub(crate) default: bool,
}

/// What a store is, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Sqlite { path: PathBuf, form: Form },
    Files { path: PathBuf, exclude: Vec<String> },
}

/// What a backup holds of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Native,
    Logical,
}

const FORMS: &[&str] = &["native", "logical"];
const KINDS: &[&str] = &["files", "sqlite"];

impl Config {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let missing = e.kind() == std::io::ErrorKind::NotFound;
            let error = Error::io("the configuration cannot be read", e).on(path.display());
            if missing {
                error.advise("name it with -c, or write one: see backup-kit --help")
            } else {
                error
            }
        })?;
        // A file in the current folder has the empty path as its parent: that joins well.
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|fault| {
            let (line, column) = position(&text, fault.at);
            let error = Error::new(ErrorKind::InvalidInput, fault.what)
                .on(format!("{}:{line}:{column}", path.display()));
            match fault.hint {
                Some(hint) => error.advise(hint),
                None => error.advise("correct the configuration"),
            }
        })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Fault> {
        let document = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            Fault { what: format!("not TOML: {}", e.message()), at, hint: None }
        })?;
        let document = Section::new("the configuration", &document, document.get_ref())
            .knows(&["app", "catalog", "store"])?;

        let app = document.required("app")?;
        let app = Section::table("[app]", app)?.knows(&["name", "version"])?;
        let catalog = match document.get("catalog") {
            Some(catalog) => {
                let catalog = Section::table("[catalog]", catalog)?.knows(&["path"])?;
                Some(folder.join(catalog.text("path")?))
            }
            None => None,
        };
        let stores = document.required("store")?;
        let Some(list) = stores.get_ref().as_array() else {
            return Err(fault(stores, "`store` has to be a list").hint("write [[store]]"));
        };
        let mut config = Self {
            folder: if folder == Path::new("") { ".".into() } else { folder.to_owned() },
            app: App { name: app.text("name")?, version: app.text("version")? },
            catalog,
            stores: Vec::new(),
        };
        for entry in list.iter() {
            let store = Store::parse(entry, folder)?;
            if config.stores.iter().any(|earlier| earlier.name == store.name) {
                return Err(fault(entry, format!("two stores have the name `{}`", store.name)));
            }
            config.stores.push(store);
        }
        if config.stores.is_empty() {
            return Err(fault(stores, "there is no [[store]]"));
        }
        Ok(config)
    }
}

impl Store {
    fn parse(entry: &Spanned<DeValue<'_>>, folder: &Path) -> Result<Self, Fault> {
        let section = Section::table("[[store]]", entry)?;
        let named = section.required("kind")?;
        let kind = section.text("kind")?;
        let common = ["name", "kind", "optional", "default"];
        let own: &[&str] = match kind.as_str() {
            "sqlite" => &["path", "mode"],
            "files" => &["path", "exclude"],
            other => {
                let unknown = fault(named, format!("unknown kind of store `{other}`"));
                return Err(unknown.suggest(other, KINDS));
            }
        };
        let section = section.knows(&[&common, own].concat())?;
        let path = folder.join(section.text("path")?);
        Ok(Self {
            name: section.text("name")?,
            kind: match kind.as_str() {
                "sqlite" => Kind::Sqlite { path, form: Form::parse(&section)? },
                _ => Kind::Files { path, exclude: section.texts("exclude")? },
            },
            optional: section.flag("optional")?.unwrap_or(false),
            default: section.flag("default")?.unwrap_or(true),
        })
    }
}

impl Form {
    fn parse(section: &Section<'_, '_>) -> Result<Self, Fault> {
        let Some(value) = section.get("mode") else { return Ok(Self::Native) };
        match section.text("mode")?.as_str() {
            "native" => Ok(Self::Native),
            "logical" => Ok(Self::Logical),
            other => Err(fault(value, format!("unknown mode `{other}`")).suggest(other, FORMS)),
        }
    }
}

/// What is wrong, and where in the text.
#[derive(Debug)]
struct Fault {
    what: String,
    at: usize,
    hint: Option<String>,
}

fn fault<T>(place: &Spanned<T>, what: impl Into<String>) -> Fault {
    Fault { what: what.into(), at: place.span().start, hint: None }
}

impl Fault {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn suggest(self, word: &str, known: &[&str]) -> Self {
        self.hint(crate::suggest::hint(word, known))
    }
}

/// A table whose keys are read one by one.
struct Section<'t, 'i> {
    title: &'static str,
    span: Range<usize>,
    table: &'t DeTable<'i>,
}

impl<'t, 'i> Section<'t, 'i> {
    fn new<T>(title: &'static str, place: &Spanned<T>, table: &'t DeTable<'i>) -> Self {
        Self { title, span: place.span(), table }
    }

    fn table(title: &'static str, value: &'t Spanned<DeValue<'i>>) -> Result<Self, Fault> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Self::new(title, value, table)),
            other => {
                let what = format!("{title} has to be a table, not {}", other.type_str());
                Err(fault(value, what))
            }
        }
    }

    /// Refuses other keys.
    fn knows(self, known: &[&str]) -> Result<Self, Fault> {
        for key in self.table.keys() {
            let word = key.get_ref().as_ref();
            if !known.contains(&word) {
                let unknown = fault(key, format!("unknown key `{word}` in {}", self.title));
                return Err(unknown.suggest(word, known));
            }
        }
        Ok(self)
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    fn required(&self, key: &str) -> Result<&'t Spanned<DeValue<'i>>, Fault> {
        self.get(key).ok_or_else(|| Fault {
            what: format!("{} has no `{key}`", self.title),
            at: self.span.start,
            hint: Some(format!("add `{key}`")),
        })
    }

    fn text(&self, key: &str) -> Result<String, Fault> {
        let value = self.required(key)?;
        match value.get_ref().as_str() {
            Some("") => Err(fault(value, format!("`{key}` is empty"))),
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(key, value, "a text in quotes")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Fault> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.get_ref().as_array();
        let texts = list.and_then(|list| {
            list.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        });
        texts.ok_or_else(|| self.wrong(key, value, "a list of texts"))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let flag = value.get_ref().as_bool();
        flag.map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Fault {
        fault(value, format!("`{key}` in {} has to be {wanted}", self.title))
    }
}

/// Line and column, counted from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[app]                       # whose data this is; versions are compared at restore
name = "docs-memory"
version = "1.4.0"

[catalog]                   # where archives go
path = "backups"

[[store]]
name = "state"              # its name in the archive
kind = "sqlite"
path = "state.db"

[[store]]
name = "uploads"
kind = "files"
path = "/srv/uploads"
exclude = ["*.tmp"]
optional = true
default = false
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/memory")).map_err(|fault| {
            let (line, column) = position(text, fault.at);
            let hint = fault.hint.map(|hint| format!(" | {hint}")).unwrap_or_default();
            format!("{line}:{column}: {}{hint}", fault.what)
        })
    }

    #[test]
    fn the_documented_form_reads() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.app, App { name: "docs-memory".into(), version: "1.4.0".into() });
        assert_eq!(config.catalog.as_deref(), Some(Path::new("/etc/memory/backups")));
        let [state, uploads] = config.stores.try_into().unwrap();
        assert_eq!(
            state,
            Store {
                name: "state".into(),
                kind: Kind::Sqlite { path: "/etc/memory/state.db".into(), form: Form::Native },
                optional: false,
                default: true,
            }
        );
        assert_eq!(
            uploads,
            Store {
                name: "uploads".into(),
                kind: Kind::Files { path: "/srv/uploads".into(), exclude: vec!["*.tmp".into()] },
                optional: true,
                default: false,
            }
        );
    }

    #[test]
    fn the_example_in_the_readme_reads() {
        let readme = include_str!("../README.md");
        let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let config = parse(example.expect("an example")).unwrap();
        assert_eq!(config.stores.len(), 2);
    }

    #[test]
    fn every_fault_has_its_place_and_its_remedy() {
        let app = "[app]\nname = \"a\"\nversion = \"1\"\n";
        let store = "[[store]]\nname = \"s\"\nkind = \"files\"\npath = \"p\"\n";
        let cases: &[(String, &str)] = &[
            (
                GOOD.replace("exclude", "exlude"),
                "18:1: unknown key `exlude` in [[store]] | did you mean `exclude`?",
            ),
            (
                GOOD.replace("[app] ", "[ap] "),
                "2:2: unknown key `ap` in the configuration | did you mean `app`?",
            ),
            (
                format!("{app}{store}password = \"hunter2\""),
                "8:1: unknown key `password` in [[store]] | known here: name, kind, optional, default, path, exclude",
            ),
            (
                format!("{app}[[store]]\nname = \"s\"\nkind = \"sqlit\""),
                "6:8: unknown kind of store `sqlit` | did you mean `sqlite`?",
            ),
            (
                format!(
                    "{app}[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath=\"p\"\nexclude = []"
                ),
                "8:1: unknown key `exclude` in [[store]] | known here: name, kind, optional, default, path, mode",
            ),
            (
                format!(
                    "{app}[[store]]\nname = \"s\"\nkind = \"sqlite\"\npath=\"p\"\nmode = \"logic\""
                ),
                "8:8: unknown mode `logic` | did you mean `logical`?",
            ),
            (
                format!("{app}[[store]]\nkind = \"files\"\npath = \"p\""),
                "4:1: [[store]] has no `name` | add `name`",
            ),
            (
                format!("{app}[store]\nname = \"s\""),
                "4:1: `store` has to be a list | write [[store]]",
            ),
            (format!("{app}{store}{store}"), "8:1: two stores have the name `s`"),
            (format!("store = []\n{app}"), "1:9: there is no [[store]]"),
            (app.into(), "1:1: the configuration has no `store` | add `store`"),
            (
                format!("{app}{store}optional = 1"),
                "8:12: `optional` in [[store]] has to be true or false",
            ),
            (
                format!("{app}{store}exclude = [1]"),
                "8:11: `exclude` in [[store]] has to be a list of texts",
            ),
            (format!("[app]\nname = \"\"\nversion = \"1\"\n{store}"), "2:8: `name` is empty"),
            (
                format!("[app]\nname = 7\nversion = \"1\"\n{store}"),
                "2:8: `name` in [app] has to be a text in quotes",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err(), *expected, "{text}");
        }
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let error = parse("[app]\npassword = \"hunter2").unwrap_err();
        assert!(error.starts_with("2:"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
