//! By what a node of the archive and a live one are known to be the same.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result};

use crate::{
    client::{Client, Statement},
    marks::{View, World, is_marked},
    names::Kind,
    options::Neo4jOptions,
    records::Keys,
    schema::{Document, Object, Objects},
};

/// The live constraints, with those that the merge adds, and the keys that follow from them.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    objects: Objects,
    keys: Keys,
    /// Labels and types that are live, or that a live constraint or index is about.
    used: BTreeSet<String>,
}

impl Identity {
    pub(crate) async fn live(client: &Client, options: &Neo4jOptions) -> Result<Self> {
        let objects = Objects::read(client).await?;
        let mut used = BTreeSet::new();
        for all in [
            "CALL db.labels() YIELD label AS name RETURN name",
            "CALL db.relationshipTypes() YIELD relationshipType AS name RETURN name",
        ] {
            for row in client.ask(&Statement::new(all)).await? {
                used.insert(row.text("name")?.to_owned());
            }
        }
        used.retain(|name| !is_marked(name));
        let ruled = objects.constraints.iter().chain(&objects.indexes).flat_map(|rule| &rule.on);
        used.extend(ruled.cloned());
        Ok(Self { keys: Keys::new(&objects, options), objects, used })
    }

    /// That of a merge whose switch may have begun.
    pub(crate) fn noted(objects: Objects, options: &Neo4jOptions) -> Self {
        Self { keys: Keys::new(&objects, options), objects, used: BTreeSet::new() }
    }

    /// Takes a collection's document in, and leaves in it the constraints and indexes that the
    /// merge adds: those about nothing that is live. What is live keeps its own.
    ///
    /// # Errors
    /// A collection whose live nodes are found by other properties.
    pub(crate) fn take(
        &mut self,
        collection: &str,
        kind: &Kind,
        document: &mut Document,
        options: &Neo4jOptions,
    ) -> Result<()> {
        let free = |rule: &Object| {
            let lookup = rule.kind == "LOOKUP" || rule.on.is_empty();
            !lookup && !rule.on.iter().any(|name| self.used.contains(name))
        };
        document.constraints.retain(free);
        document.indexes.retain(free);
        add(&mut self.objects.constraints, &document.constraints)?;
        add(&mut self.objects.indexes, &document.indexes)?;
        self.keys = Keys::new(&self.objects, options);
        let Kind::Nodes(labels) = kind else { return Ok(()) };
        let live = self.keys.of(labels);
        if live == document.key {
            return Ok(());
        }
        let what = "nodes of the archive are found by other properties than live ones";
        let told = |key: &[String]| match key {
            [] => "nothing".to_owned(),
            some => some.join(", "),
        };
        let both = format!("{} in the archive, {} here", told(&document.key), told(&live));
        Err(Error::new(ErrorKind::Incompatible, what).on(format!("{collection}: {both}")).advise(
            "name the properties with `Neo4jOptions::key`, or make the uniqueness constraint that the \
             archive's graph has",
        ))
    }

    pub(crate) fn key(&self, labels: &[String]) -> Vec<String> {
        self.keys.of(labels)
    }

    pub(crate) fn view(&self, world: World) -> View {
        View { world, keys: self.keys.clone(), numbered: false }
    }

    /// Whether the server finds nodes with these labels by these properties without looking at all.
    pub(crate) fn is_indexed(&self, labels: &[String], key: &[String]) -> bool {
        self.objects.constraints.iter().any(|rule| {
            rule.is_key_of_nodes()
                && rule.properties == key
                && rule.on.iter().any(|label| labels.contains(label))
        })
    }
}

fn add(known: &mut Vec<Object>, more: &[Object]) -> Result<()> {
    for object in more {
        match known.iter().find(|known| known.name == object.name) {
            Some(same) if same == object => {}
            Some(_) => {
                let what = "a constraint or index of this name is about something else here";
                return Err(Error::new(ErrorKind::Incompatible, what)
                    .on(&object.name)
                    .advise("drop or rename the live one, or leave its collection out"));
            }
            None => known.push(object.clone()),
        }
    }
    Ok(())
}

/// Constraints and indexes after the merge: those from before, and those that it adds.
pub(crate) fn wanted(documents: &BTreeMap<String, Document>, before: Objects) -> Result<Objects> {
    let mut wanted = before;
    for document in documents.values() {
        add(&mut wanted.constraints, &document.constraints)?;
        add(&mut wanted.indexes, &document.indexes)?;
    }
    Ok(wanted)
}
