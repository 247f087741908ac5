//! The document's own tree, read key by key so that every fault has its place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong, and where in the text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) at: usize,
    pub(super) hint: Option<String>,
}

pub(super) fn fault<T>(place: &Spanned<T>, what: impl Into<String>) -> Fault {
    Fault { what: what.into(), at: place.span().start, hint: None }
}

impl Fault {
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn suggest(self, word: &str, known: &[&str]) -> Self {
        self.hint(crate::suggest::hint(word, known))
    }
}

/// A table whose keys are read one by one.
pub(super) struct Section<'t, 'i> {
    title: &'static str,
    span: Range<usize>,
    pub(super) table: &'t DeTable<'i>,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(super) fn new<T>(title: &'static str, place: &Spanned<T>, table: &'t DeTable<'i>) -> Self {
        Self { title, span: place.span(), table }
    }

    pub(super) fn table(
        title: &'static str,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<Self, Fault> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Self::new(title, value, table)),
            other => {
                let what = format!("{title} has to be a table, not {}", other.type_str());
                Err(fault(value, what))
            }
        }
    }

    /// Refuses other keys.
    pub(super) fn knows(self, known: &[&str]) -> Result<Self, Fault> {
        for key in self.table.keys() {
            let word = key.get_ref().as_ref();
            if !known.contains(&word) {
                let unknown = fault(key, format!("unknown key `{word}` in {}", self.title));
                return Err(unknown.suggest(word, known));
            }
        }
        Ok(self)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    pub(super) fn required(&self, key: &str) -> Result<&'t Spanned<DeValue<'i>>, Fault> {
        self.get(key).ok_or_else(|| Fault {
            what: format!("{} has no `{key}`", self.title),
            at: self.span.start,
            hint: Some(format!("add `{key}`")),
        })
    }

    pub(super) fn text(&self, key: &str) -> Result<String, Fault> {
        let value = self.required(key)?;
        match value.get_ref().as_str() {
            Some("") => Err(fault(value, format!("`{key}` is empty"))),
            Some(text) => Ok(text.to_owned()),
            None => Err(self.wrong(key, value, "a text in quotes")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Fault> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.get_ref().as_array();
        let texts = list.and_then(|list| {
            list.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        });
        texts.ok_or_else(|| self.wrong(key, value, "a list of texts"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let flag = value.get_ref().as_bool();
        flag.map(Some).ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A whole number from zero on.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Fault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let digits = value.get_ref().as_integer();
        let number = digits.and_then(|d| u64::from_str_radix(d.as_str(), d.radix()).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, value, "a whole number from zero on"))
    }

    /// The entries of a list, none where it is not there.
    pub(super) fn list(
        &self,
        key: &str,
    ) -> Result<impl Iterator<Item = &'t Spanned<DeValue<'i>>>, Fault> {
        let list = match self.get(key) {
            None => None,
            Some(value) => match value.get_ref().as_array() {
                None => return Err(self.wrong(key, value, "a list")),
                list => list,
            },
        };
        Ok(list.into_iter().flat_map(|list| list.iter()))
    }

    /// What is wrong with the table as a whole.
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { what: what.into(), at: self.span.start, hint: None }
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Fault {
        fault(value, format!("`{key}` in {} has to be {wanted}", self.title))
    }
}

/// Line and column, counted from 1.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
