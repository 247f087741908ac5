//! What of the stores is meant: by name, by project, by time, by any value.

mod condition;
mod filter;
mod names;
mod rewrite;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeBounds},
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

pub(crate) use self::value::time;
pub use self::{
    condition::{Condition, Field, Kind, Op, Test},
    filter::Filter,
    names::NameMap,
    rewrite::{Change, Rewrite, Rewriter},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
};

/// What a backup takes, or a restore brings back: stores and collections by name, and
/// records by what is in them.
///
/// Where a store or a collection is named, what is not named is left out. Of what remains,
/// records are taken for which every [`Rule`] of their collection holds; a collection without a
/// rule is taken whole.
///
/// ```
/// use backup_core::{Selection, Timestamp};
///
/// let selection = Selection::new()
///     .collection("state", "notes")
///     .project("alpha")
///     .created(Timestamp::from_micros(1_767_225_600_000_000)..);
///
/// let written = selection.expressions();
/// assert_eq!(written, [
///     "collection=state/notes",
///     "project=alpha and created_at>=2026-01-01T00:00:00Z",
/// ]);
/// assert_eq!(Selection::parse(&written)?, selection);
/// # Ok::<(), backup_core::Error>(())
/// ```
///
/// # As text
/// Each expression chooses stores or collections, or is a rule; a record has to fulfil all rules.
///
/// | expression | takes |
/// |---|---|
/// | `store=state`, `store in [state, vectors]` | these stores, and no others |
/// | `collection=state/notes` | this collection, and none that is not named |
/// | `project=alpha`, `category=c`, `tag=x` | records of the project, of the category, with the tag |
/// | `created>=2026-01-01`, `updated<2026-02-01T12:00:00Z` | by time |
/// | `/meta/lang=en`, `/n!=5`, `/n<5`, `/lang in [en, "de"]` | by the value at a JSON pointer |
/// | `/text contains word`, `/url starts-with https://` | by part of a text, or an item of a list |
/// | `/meta exists`, `project missing` | by whether there is a value other than `null` |
/// | `project=a and not (tag=x or tag=y)` | by several; `and` binds before `or` |
/// | `state/notes: /lang=en`, `state: tag=x` | only of this collection, of this store; others whole |
/// | `unmapped=leave-out`, `unmapped=whole` | see [`Unmapped`] |
///
/// A text with other characters than letters, digits and `_ - . / : @ +` stands in double
/// quotes, as JSON has them, and so do names. At a pointer, `5`, `true` and `null` are what JSON
/// says, and `"5"` is a text.
///
/// # What is compared
/// * A **pointer** (RFC 6901) looks into the record's value as it stands in the archive. Numbers
///   are compared as numbers, texts by their characters; one is never less than the other.
/// * A **name** is looked up in the collection's [`FieldMapping`].
/// * `created_at` and `updated_at` (also `created`, `updated`) are **times**: in a record RFC 3339,
///   a date and time without an offset (taken as UTC), or the number of seconds since 1970, of
///   milliseconds from 10¹¹ on, microseconds from 10¹⁴ on, nanoseconds from 10¹⁷ on. A condition
///   has RFC 3339 or a date, which is the whole day in UTC. A value that is no time is an error, not
///   a record that is silently left out.
/// * `project`, `category`, `tags` (also `tag`), `title`, `content` and `model` are **texts**; a
///   number in a record counts as its digits. Where a record has a list, one item has to fulfil the
///   condition; lists in a list do not. Tags may also be a text: a JSON list, or words with commas between them.
/// * A record without the value fulfils only `missing` and what begins with `not` or has `!=`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    // By store the collections; none named: the whole store. Empty: all stores.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stores: BTreeMap<String, BTreeSet<String>>,
    // At most one a place.
    #[serde(default, deserialize_with = "read_rules", skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Rule>,
    #[serde(default, skip_serializing_if = "Unmapped::is_refuse")]
    unmapped: Unmapped,
}

/// A condition and where it applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Rule {
    /// Only in this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Only in this collection of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// What has to hold.
    #[serde(rename = "where")]
    pub condition: Condition,
}

fn read_rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rule>, D::Error> {
    let rules = Vec::<Rule>::deserialize(from)?;
    if rules.iter().any(|rule| rule.collection.is_some() && rule.store.is_none()) {
        return Err(D::Error::custom("a rule names a collection without its store"));
    }
    Ok(rules.into_iter().fold(Selection::new(), Selection::rule).rules)
}

/// What becomes of a collection in which a rule cannot look: a field that the collection does not
/// map, or a store that is carried as files or native snapshots and has no records to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Unmapped {
    /// Nothing is done, and the error says what to choose: a memory that is silently not in a
    /// backup, or a stranger's that silently is, would be noticed too late.
    #[default]
    Refuse,
    /// It is left out.
    LeaveOut,
    /// It is taken as if the condition with that field did not apply to it; others do.
    Whole,
}

impl Unmapped {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }

    /// Its name, as in an expression.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::LeaveOut => "leave-out",
            Self::Whole => "whole",
        }
    }
}

impl Rule {
    /// Whether it applies to the collection.
    #[must_use]
    pub fn applies(&self, store: &str, collection: &str) -> bool {
        self.touches(store) && self.collection.as_deref().is_none_or(|name| name == collection)
    }

    /// Whether it applies to anything in the store.
    #[must_use]
    pub fn touches(&self, store: &str) -> bool {
        self.store.as_deref().is_none_or(|name| name == store)
    }

    fn place(&self) -> (Option<&str>, Option<&str>) {
        (self.store.as_deref(), self.collection.as_deref())
    }
}

impl Selection {
    /// Everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads expressions, as described [above](Self#as-text).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): what is wrong with which expression, and where.
    pub fn parse<S: AsRef<str>>(expressions: impl IntoIterator<Item = S>) -> Result<Self> {
        expressions.into_iter().try_fold(Self::new(), |selection, expression| {
            Ok(match text::expression(expression.as_ref())? {
                text::Expression::Stores(names) => names.into_iter().fold(selection, Self::store),
                text::Expression::Collections(names) => names
                    .into_iter()
                    .fold(selection, |selection, (store, name)| selection.collection(store, name)),
                text::Expression::Unmapped(choice) => selection.unmapped(choice),
                text::Expression::Rule(rule) => selection.rule(rule),
            })
        })
    }

    /// The expressions that [`parse`](Self::parse) makes this of.
    #[must_use]
    pub fn expressions(&self) -> Vec<String> {
        text::expressions(self)
    }

    /// This store, whole, and no other that is not named.
    #[must_use]
    pub fn store(mut self, name: impl Into<String>) -> Self {
        self.stores.insert(name.into(), BTreeSet::new());
        self
    }

    /// This collection, table or root of a store, and no other that is not named.
    #[must_use]
    pub fn collection(mut self, store: impl Into<String>, name: impl Into<String>) -> Self {
        let store = store.into();
        let whole = self.stores.get(&store).is_some_and(BTreeSet::is_empty);
        if !whole {
            self.stores.entry(store).or_default().insert(name.into());
        }
        self
    }

    /// Records of this project.
    #[must_use]
    pub fn project(self, project: impl Into<String>) -> Self {
        self.matching(Condition::label(Field::project(), [project.into()]))
    }

    /// Records of this category.
    #[must_use]
    pub fn category(self, category: impl Into<String>) -> Self {
        self.matching(Condition::label(Field::category(), [category.into()]))
    }

    /// Records with this tag.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.matching(Condition::label(Field::tags(), [tag.into()]))
    }

    /// Records made within these times.
    #[must_use]
    pub fn created(self, range: impl RangeBounds<Timestamp>) -> Self {
        self.within(Field::created_at(), &range)
    }

    /// Records last changed within these times.
    #[must_use]
    pub fn updated(self, range: impl RangeBounds<Timestamp>) -> Self {
        self.within(Field::updated_at(), &range)
    }

    fn within(self, field: Field, range: &impl RangeBounds<Timestamp>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(time) => Some((Op::AtLeast, *time)),
            Bound::Excluded(time) => Some((Op::Greater, *time)),
            Bound::Unbounded => None,
        };
        let end = match range.end_bound() {
            Bound::Included(time) => Some((Op::AtMost, *time)),
            Bound::Excluded(time) => Some((Op::Less, *time)),
            Bound::Unbounded => None,
        };
        start.into_iter().chain(end).fold(self, |selection, (op, time)| {
            selection.matching(Condition::time(field.clone(), op, time))
        })
    }

    /// Records, of whatever store, for which this holds.
    #[must_use]
    pub fn matching(self, condition: Condition) -> Self {
        self.rule(Rule { store: None, collection: None, condition })
    }

    /// Of this store, or this collection of it, records for which this holds.
    #[must_use]
    pub fn matching_in(
        self,
        store: impl Into<String>,
        collection: Option<&str>,
        condition: Condition,
    ) -> Self {
        let collection = collection.map(str::to_owned);
        self.rule(Rule { store: Some(store.into()), collection, condition })
    }

    fn rule(mut self, rule: Rule) -> Self {
        match self.rules.binary_search_by(|known| known.place().cmp(&rule.place())) {
            Ok(at) => {
                let known =
                    std::mem::replace(&mut self.rules[at].condition, Condition::All(vec![]));
                self.rules[at].condition = known.and(rule.condition);
            }
            Err(at) => {
                let condition = rule.condition.canonical();
                self.rules.insert(at, Rule { condition, ..rule });
            }
        }
        self
    }

    /// What becomes of collections in which a rule cannot look.
    #[must_use]
    pub fn unmapped(mut self, choice: Unmapped) -> Self {
        self.unmapped = choice;
        self
    }

    /// What was [said](Self::unmapped) for collections in which a rule cannot look.
    #[must_use]
    pub fn when_unmapped(&self) -> Unmapped {
        self.unmapped
    }

    /// Whether everything is taken.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.stores.is_empty() && self.rules.is_empty()
    }

    /// The stores that are named, and of each the collections that are named; a store without
    /// these is meant whole. Empty where nothing is named.
    #[must_use]
    pub fn named(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.stores
    }

    /// The rules, at most one for each place.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether anything of the store is taken.
    #[must_use]
    pub fn takes_store(&self, store: &str) -> bool {
        self.stores.is_empty() || self.stores.contains_key(store)
    }

    /// Every store that is named, also by a rule.
    pub fn store_names(&self) -> impl Iterator<Item = &str> {
        let ruled = self.rules.iter().filter_map(|rule| rule.store.as_deref());
        self.stores.keys().map(String::as_str).chain(ruled)
    }

    /// Whether anything of the collection is taken, as far as names go.
    #[must_use]
    pub fn takes(&self, store: &str, collection: &str) -> bool {
        self.stores.is_empty()
            || self
                .stores
                .get(store)
                .is_some_and(|names| names.is_empty() || names.contains(collection))
    }

    /// Whether all of the store is taken: what is there already may then be replaced.
    #[must_use]
    pub fn takes_all_of(&self, store: &str) -> bool {
        let named = self.stores.get(store);
        (self.stores.is_empty() || named.is_some_and(BTreeSet::is_empty))
            && !self.rules.iter().any(|rule| rule.touches(store))
    }

    /// Whether what has no records, files or native snapshots, is taken: whole or not at all.
    /// `collection` is the root of the files; `None` is the store as one piece.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where a rule would have to look into it and nothing
    /// [was said](Self::unmapped) for that case.
    pub fn takes_unreadable(&self, store: &str, collection: Option<&str>) -> Result<bool> {
        let (taken, whole) = match collection {
            Some(name) => {
                let mut rules = self.rules.iter();
                (self.takes(store, name), !rules.any(|rule| rule.applies(store, name)))
            }
            None => (self.takes_store(store), self.takes_all_of(store)),
        };
        match self.unmapped {
            _ if !taken || whole => Ok(taken),
            Unmapped::LeaveOut => Ok(false),
            Unmapped::Whole => Ok(true),
            Unmapped::Refuse => {
                let what = "a part is to be chosen of a store that is carried as files or native snapshots";
                Err(Error::new(ErrorKind::Unsupported, what).on(store).advise(
                    "take it in its portable form; or leave it out with unmapped=leave-out, or take it whole with unmapped=whole",
                ))
            }
        }
    }

    /// The fields that rules for this collection name and `fields` does not map.
    #[must_use]
    pub fn missing_fields(
        &self,
        store: &str,
        collection: &str,
        fields: &FieldMapping,
    ) -> Vec<&Field> {
        let mut missing = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.applies(store, collection)) {
            rule.condition.visit(&mut |test| {
                if test.field().pointer(fields).is_none() && !missing.contains(&test.field()) {
                    missing.push(test.field());
                }
            });
        }
        missing
    }

    /// What is taken of one collection, ready to be asked.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where a rule names a field that the collection
    /// does not map, and nothing [was said](Self::unmapped) for that case.
    pub fn filter(&self, store: &str, collection: &str, fields: &FieldMapping) -> Result<Filter> {
        let place = format!("{store}/{collection}");
        if !self.takes(store, collection) {
            return Ok(Filter::nothing(place));
        }
        let missing = self.missing_fields(store, collection, fields);
        match self.unmapped {
            Unmapped::Refuse if !missing.is_empty() => Err(unmapped(&place, &missing)),
            Unmapped::LeaveOut if !missing.is_empty() => Ok(Filter::nothing(place)),
            _ => {
                let rules = self.rules.iter().filter(|rule| rule.applies(store, collection));
                let conditions = rules.flat_map(|rule| rule.condition.conjuncts());
                let known = conditions.filter(|condition| condition.is_mapped(fields));
                Filter::new(place, known, fields)
            }
        }
    }

    /// Checks every name against what there is.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a store or collection that is not in `known`.
    pub fn check_names<'k, C>(&self, known: &'k BTreeMap<String, C>) -> Result<()>
    where
        &'k C: IntoIterator<Item = &'k String>,
    {
        let named = self.stores.iter().flat_map(|(store, collections)| {
            let store = store.as_str();
            let names = collections.iter().map(move |name| (store, Some(name.as_str())));
            std::iter::once((store, None)).chain(names)
        });
        let ruled =
            self.rules.iter().filter_map(|r| Some((r.store.as_deref()?, r.collection.as_deref())));
        named.chain(ruled).try_for_each(|(store, name)| names::check(known, store, name))
    }
}

impl Selection {
    // Checks the collections that rules name.
    pub(crate) fn check_rules(&self, store: &str, known: &[&str]) -> Result<()> {
        let rules = self.rules.iter().filter(|rule| rule.store.as_deref() == Some(store));
        for name in rules.filter_map(|rule| rule.collection.as_deref()) {
            if !known.contains(&name) {
                return Err(names::missing(
                    "there is no such collection",
                    text::place(store, Some(name)),
                    known,
                ));
            }
        }
        Ok(())
    }
}

fn unmapped(place: &str, missing: &[&Field]) -> Error {
    let names: Vec<_> = missing.iter().map(|field| field.as_str()).collect();
    let what = format!("it is not known where the records have their {}", names.join(", "));
    Error::new(ErrorKind::InvalidInput, what).on(place).advise(
        "map the field for this collection; or leave such collections out with unmapped=leave-out, or take them whole with unmapped=whole",
    )
}
