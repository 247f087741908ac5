//! Constraints and indexes: tried on what is staged, removed where they would be in the way, made
//! once the content is live.

use std::{collections::BTreeMap, time::Duration};

use backup_core::{Cancel, Error, ErrorKind, Result};

use crate::{
    client::{Client, Statement},
    marks::{World, is_marked},
    names::SCHEMA,
    schema::{Document, Object, Objects},
};

/// Before the names of constraints and indexes that are tried.
const TWIN: &str = "backup-kit:twin:";

/// Labels and types on which an index is tried: nothing has them.
const PROBE: &str = "backup-kit:probe:";

/// How often the server is asked whether its indexes are ready.
const LOOK: Duration = Duration::from_millis(50);

/// Constraints and indexes that the archive wants.
///
/// Its document of the whole graph has all of them. Without one, those of the collections count,
/// and the lookup indexes stay as they are.
pub(crate) fn wanted(documents: &BTreeMap<String, Document>, live: &Objects) -> Objects {
    if let Some(whole) = documents.get(SCHEMA) {
        return Objects { constraints: whole.constraints.clone(), indexes: whole.indexes.clone() };
    }
    let mut wanted = Objects::default();
    let add = |to: &mut Vec<Object>, more: &[Object]| {
        for object in more {
            if !to.iter().any(|known| known.name == object.name) {
                to.push(object.clone());
            }
        }
    };
    for document in documents.values() {
        add(&mut wanted.constraints, &document.constraints);
        add(&mut wanted.indexes, &document.indexes);
    }
    let lookups: Vec<_> =
        live.indexes.iter().filter(|index| index.kind == "LOOKUP").cloned().collect();
    wanted.indexes.retain(|index| index.kind != "LOOKUP");
    wanted.indexes.extend(lookups);
    wanted
}

/// Refuses what the server would not take, before anything live is touched: constraints are made
/// for what is staged, and so hold for it; indexes for nothing.
pub(crate) async fn try_all(client: &Client, wanted: &Objects, cancel: &Cancel) -> Result<()> {
    let live = Objects::read(client).await?;
    for constraint in &wanted.constraints {
        cancel.check()?;
        let twin = twin(constraint, |name| World::Staged.name(name));
        client.ask(&twin.create(None)?).await.map_err(|e| on(e, constraint))?;
        client.ask(&Object::drop_constraint(&twin.name)).await?;
    }
    for index in &wanted.indexes {
        cancel.check()?;
        // There is one for labels and one for types, and what is live was taken before.
        if index.kind == "LOOKUP" || live.indexes.contains(index) {
            index.create(None)?;
            continue;
        }
        let twin = twin(index, |name| format!("{PROBE}{name}"));
        client.ask(&twin.create(None)?).await.map_err(|e| on(e, index))?;
        client.ask(&Object::drop_index(&twin.name)).await?;
    }
    Ok(())
}

fn twin(object: &Object, name: impl Fn(&str) -> String) -> Object {
    Object {
        name: format!("{TWIN}{}", object.name),
        on: object.on.iter().map(|on| name(on)).collect(),
        ..object.clone()
    }
}

fn on(error: Error, object: &Object) -> Error {
    // What the server does not like of their options it calls a failure of its own.
    let error = match error.kind() {
        ErrorKind::Io => {
            let what = "the server does not take a constraint or index";
            Error::new(ErrorKind::Unsupported, what).because(error)
        }
        _ => error,
    };
    error.on(format!("{} {} on {}", object.kind, object.name, object.on.join(", ")))
}

/// Removes what is not among `wanted`. Lookup indexes stay: a switch needs them.
pub(crate) async fn only(client: &Client, wanted: &Objects) -> Result<()> {
    let live = Objects::read(client).await?;
    for index in unwanted(&live, wanted).filter(|index| index.kind != "LOOKUP") {
        client.ask(&Object::drop_index(&index.name)).await?;
    }
    for constraint in live.constraints.iter().filter(|c| !wanted.constraints.contains(c)) {
        client.ask(&Object::drop_constraint(&constraint.name)).await?;
    }
    Ok(())
}

fn unwanted<'a>(live: &'a Objects, wanted: &'a Objects) -> impl Iterator<Item = &'a Object> {
    live.indexes.iter().filter(|index| !wanted.indexes.contains(index))
}

/// Makes what is missing, and waits until all of it can be used.
pub(crate) async fn make(client: &Client, wanted: &Objects, cancel: &Cancel) -> Result<()> {
    let live = Objects::read(client).await?;
    for lookup in unwanted(&live, wanted).filter(|index| index.kind == "LOOKUP") {
        client.ask(&Object::drop_index(&lookup.name)).await?;
    }
    for constraint in wanted.constraints.iter().filter(|c| !live.constraints.contains(c)) {
        cancel.check()?;
        client.ask(&constraint.create(None)?).await.map_err(|e| on(e, constraint))?;
    }
    for index in wanted.indexes.iter().filter(|index| !live.indexes.contains(index)) {
        cancel.check()?;
        client.ask(&index.create(None)?).await.map_err(|e| on(e, index))?;
    }
    online(client, cancel).await?;
    let made = Objects::read(client).await?;
    let lacks = |wanted: &[Object], made: &[Object]| {
        wanted.iter().find(|object| !made.contains(object)).cloned()
    };
    let lack = lacks(&wanted.constraints, &made.constraints)
        .or_else(|| lacks(&wanted.indexes, &made.indexes));
    match lack {
        None => Ok(()),
        Some(object) => {
            let what = "the server made a constraint or index otherwise than it was asked to";
            Err(on(Error::new(ErrorKind::Incompatible, what), &object))
        }
    }
}

async fn online(client: &Client, cancel: &Cancel) -> Result<()> {
    let ask = Statement::new("SHOW INDEXES YIELD name, state RETURN name, state");
    loop {
        cancel.check()?;
        let mut waits = false;
        for row in client.ask(&ask).await? {
            match row.text("state")? {
                "ONLINE" => {}
                "FAILED" => {
                    let what = "the server could not fill an index";
                    return Err(Error::new(ErrorKind::Incompatible, what).on(row.text("name")?));
                }
                _ => waits = true,
            }
        }
        if !waits {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes those that a restore made for itself.
pub(crate) async fn sweep(client: &Client) -> Result<()> {
    for row in client.ask(&Statement::new("SHOW CONSTRAINTS YIELD name RETURN name")).await? {
        let name = row.text("name")?;
        if is_marked(name) {
            client.ask(&Object::drop_constraint(name)).await?;
        }
    }
    for row in client.ask(&Statement::new("SHOW INDEXES YIELD name RETURN name")).await? {
        let name = row.text("name")?;
        if is_marked(name) {
            client.ask(&Object::drop_index(name)).await?;
        }
    }
    Ok(())
}
