//! Passwords and keys: the configuration says where one is, and never what it is.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use backup_kit::{Error, ErrorKind, Result};
use toml::de::DeValue;

use super::tree::{Fault, Section, fault};

/// Longer than any key or password: what is longer is not one.
const LONGEST: u64 = 64 << 10;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Secret {
    /// In an environment variable.
    Env(String),
    /// In a file.
    File(PathBuf),
    /// What a program prints, which is run in the folder.
    Command { words: Vec<String>, folder: PathBuf },
}

const FORMS: &str =
    "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"PROGRAM\", …] }";

impl Secret {
    /// Reads where the secret of this name is, if there is one.
    pub(super) fn parse(
        store: &Section<'_, '_>,
        key: &'static str,
        folder: &Path,
    ) -> Result<Option<Self>, Fault> {
        let Some(value) = store.get(key) else { return Ok(None) };
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            let what = format!("`{key}` has to say where the secret is, and not what it is");
            return Err(fault(value, what).hint(FORMS));
        }
        let section = Section::table(key, value)?.knows(&["env", "file", "command"])?;
        if section.table.len() != 1 {
            return Err(section.fault(format!("`{key}` has to be in one place")).hint(FORMS));
        }
        if section.get("env").is_some() {
            return Ok(Some(Self::Env(section.text("env")?)));
        }
        if section.get("file").is_some() {
            return Ok(Some(Self::File(folder.join(section.text("file")?))));
        }
        let words = section.texts("command")?;
        if words.first().is_none_or(String::is_empty) {
            let value = section.required("command")?;
            return Err(fault(value, "`command` names no program").hint(FORMS));
        }
        Ok(Some(Self::Command { words, folder: super::here(folder) }))
    }

    /// Fetches it. A line break at its end does not belong to it.
    #[cfg_attr(not(feature = "servers"), allow(dead_code, reason = "no store needs one"))]
    pub(crate) fn fetch(&self) -> Result<String> {
        let (bytes, place) = match self {
            Self::Env(name) => match std::env::var_os(name) {
                Some(value) => (value.into_encoded_bytes(), name.clone()),
                None => return Err(missing("the environment variable is not set", name)),
            },
            Self::File(path) => (read(path)?, path.display().to_string()),
            Self::Command { words, folder } => (run(words, folder)?, words[0].clone()),
        };
        let text =
            String::from_utf8(bytes).map_err(|_| missing("what is there is not text", &place))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(missing("there is nothing", &place));
        }
        Ok(text.to_owned())
    }
}

fn missing(what: &str, place: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("a secret cannot be had: {what}"))
        .on(place)
        .advise("the configuration says where each secret is")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("a secret cannot be read", e).on(path.display());
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    short(bytes, &path.display().to_string())
}

fn run(words: &[String], folder: &Path) -> Result<Vec<u8>> {
    let program = &words[0];
    let failed = |e| Error::io("a program that prints a secret cannot be run", e).on(program);
    // It may ask a question: on the terminal, which both still have.
    let mut child = Command::new(program)
        .args(&words[1..])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut bytes = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        // What it printed may be half a secret.
        return Err(missing(&format!("the program ended with {status}"), program));
    }
    short(bytes, program)
}

fn short(bytes: Vec<u8>, place: &str) -> Result<Vec<u8>> {
    if bytes.len() as u64 > LONGEST {
        return Err(missing("what is there is too long for one", place));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> Secret {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        Secret::Command { words, folder: ".".into() }
    }

    #[test]
    fn a_secret_is_had_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (written, expected) in [("k\n", "k"), ("a b\r\n", "a b"), ("x\n\n", "x\n")] {
            fs::write(&path, written).unwrap();
            assert_eq!(Secret::File(path.clone()).fetch().unwrap(), expected);
        }
        assert_eq!(command("echo hunter2").fetch().unwrap(), "hunter2");
        let home = std::env::var("PATH").unwrap();
        assert_eq!(Secret::Env("PATH".into()).fetch().unwrap(), home);
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_not_shown_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long");
        fs::write(&long, vec![b'x'; 65 << 10]).unwrap();
        for (secret, expected) in [
            (command("printf hunter2; exit 3"), "the program ended with exit status: 3 (sh)"),
            (command("exit 0"), "there is nothing (sh)"),
            (command(r"printf '\377'"), "what is there is not text (sh)"),
            (Secret::Env("BACKUP_KIT_NO_SUCH".into()), "is not set (BACKUP_KIT_NO_SUCH)"),
            (Secret::File(folder.path().join("none")), "a secret cannot be read"),
            (Secret::File(long), "too long"),
        ] {
            let error = secret.fetch().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
