//! Planning a restore, and finding one again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use backup_core::{
    Cancel, Error, ErrorKind, Prepared, Reattached, Result, Sink, SinkSession, StagePlan,
    StageToken, Switch, VectorChanges, WriteMode, async_trait, manifest::CollectionInfo,
};
use serde_json::Value;

use super::{
    QdrantStore,
    client::Client,
    keys::same_keys,
    options::QdrantOptions,
    stage::{self, Session},
    taken::of_file,
    token::{Note, Removed, Target, Token, Was, check_name},
};
use crate::vectors::{self, Vectors};

#[async_trait]
impl Sink for QdrantStore {
    async fn prepare(&self, plan: &StagePlan) -> Result<Prepared> {
        plan.check(self)?;
        let (client, options) = (self.client.clone(), Arc::clone(&self.options));
        let forms = forms(plan)?;
        let merge = plan.mode == WriteMode::Merge;
        let native = forms.iter().find(|(_, form)| merge && form.native);
        if let Some((name, _)) = native {
            let what = "a native snapshot is a whole collection and cannot be merged into one";
            return Err(Error::new(ErrorKind::Unsupported, what)
                .on(name)
                .advise("restore in replace mode, or convert the snapshot to records first"));
        }
        let id = plan.restore_id.clone();
        let (info, changes) = (plan.info.clone(), plan.vectors.clone());
        let planned = async move {
            let (mut token, notes) = prepare(&client, &options, &id, forms, merge).await?;
            for target in &mut token.targets {
                let changes = changes.get(&target.name).cloned();
                target.left_out = changes.unwrap_or_default().left_out;
            }
            same_vectors(&client, &options, &token, &info).await?;
            let keys = same_keys(&client, &token, &info).await?;
            Ok((token, [notes, keys].concat()))
        };
        let (token, notes) = self.client.run(planned).await?;
        let switch = match token.targets.as_slice() {
            _ if merge || !token.removed.is_empty() => Switch::Stepwise,
            targets if targets.iter().all(|target| matches!(target.was, Was::Alias(_))) => {
                Switch::AtomicPointer
            }
            [_] => Switch::AtomicCopy,
            _ => Switch::Stepwise,
        };
        Ok(Prepared { token: plan.token(&token)?, switch, notes })
    }

    fn revise_vectors(&self, document: &mut Value, changes: &VectorChanges) -> Result<()> {
        vectors::revise(document, changes)
    }

    async fn begin(&self, token: &StageToken, cancel: &Cancel) -> Result<Box<dyn SinkSession>> {
        cancel.check()?;
        let token = self.token(token)?;
        let session = Session::new(self, token, cancel.clone());
        session.begin().await?;
        Ok(Box::new(session))
    }

    async fn reattach(&self, token: &StageToken) -> Result<Reattached> {
        let session = Session::new(self, self.token(token)?, Cancel::new());
        let Some(notes) = session.notes().await? else { return Ok(Reattached::Absent) };
        let session = Box::new(session);
        Ok(match notes.last() {
            // A switch that broke off is done again from its beginning, or taken back by `abort`.
            None | Some(Note::Sealed | Note::Committing) => Reattached::Staged(session),
            // So is one that was being taken back.
            Some(Note::Committed | Note::Undoing) => Reattached::Committed(session),
            Some(Note::Undone) => Reattached::Undone(session),
        })
    }
}

impl QdrantStore {
    fn token(&self, token: &StageToken) -> Result<Token> {
        let token: Token = token.read(self)?;
        token.check()?;
        Ok(token)
    }
}

/// In which form a collection stands in an archive.
#[derive(Default)]
struct Form {
    native: bool,
    /// The numbers of its shards, where each is a file.
    shards: BTreeSet<u64>,
}

fn forms(plan: &StagePlan) -> Result<BTreeMap<String, Form>> {
    let names = plan.content.collections.keys();
    let mut forms: BTreeMap<_, _> = names.map(|name| (name.clone(), Form::default())).collect();
    for blob in plan.content.blobs.keys() {
        let (collection, shard) = of_file(blob)?;
        match forms.get_mut(collection) {
            Some(form) if shard.is_some() && !form.shards.is_empty() => form.shards.extend(shard),
            Some(_) => {
                let what = "the archive has a collection in two forms";
                return Err(Error::new(ErrorKind::Corrupt, what).on(collection));
            }
            None => {
                let form = Form { native: true, shards: shard.into_iter().collect() };
                forms.insert(collection.to_owned(), form);
            }
        }
    }
    Ok(forms)
}

async fn prepare(
    client: &Client,
    options: &QdrantOptions,
    restore_id: &str,
    forms: BTreeMap<String, Form>,
    merge: bool,
) -> Result<(Token, Vec<String>)> {
    let collections = client.collections().await?;
    let aliases = client.aliases().await?;
    let anchor = Token::anchor(restore_id);
    let mut notes = Vec::new();
    let mut targets = Vec::new();
    for (number, (name, form)) in forms.into_iter().enumerate() {
        check_name(&name)?;
        if !options.wants(&name) {
            let what = "the archive has a collection that does not belong to this store";
            return Err(Error::new(ErrorKind::Incompatible, what)
                .on(name)
                .advise("let the store's patterns of collections include it"));
        }
        let staged = format!("{anchor}.new.{number}");
        let was = match aliases.get(&name) {
            Some(to) => Was::Alias(to.clone()),
            None if collections.contains(&name) => Was::Collection,
            None => Was::Free,
        };
        let shadow = match &was {
            Was::Alias(to) if !merge => {
                notes.push(format!(
                    "the alias {name} will point at a new collection; {to} is removed"
                ));
                let short = restore_id.len().saturating_sub(12);
                format!("{name}.{}", restore_id.get(short..).unwrap_or(restore_id))
            }
            Was::Collection if !merge => {
                notes.push(if client.is_whole_here(&name).await? {
                    format!("the collection {name} is replaced")
                } else {
                    format!(
                        "the collection {name} lies on several servers: it is replaced point by \
                         point, and not there meanwhile; an alias would be moved at one moment"
                    )
                });
                staged
            }
            Was::Alias(to) => {
                notes.push(format!("points are added to {to}, at which the alias {name} points"));
                staged
            }
            Was::Collection => {
                notes.push(format!("points are added to the collection {name}"));
                staged
            }
            Was::Free => staged,
        };
        let (old, left_out) = (format!("{anchor}.old.{number}"), BTreeSet::new());
        let Form { native, shards } = form;
        targets.push(Target { name, native, shards, was, shadow, old, left_out });
    }
    let kept: BTreeSet<&str> = targets.iter().map(Target::place).collect();
    let replaced = |name: &String| !merge && options.wants(name);
    let others = collections.iter().filter(|name| replaced(name) && !kept.contains(name.as_str()));
    let removed = others.enumerate().map(|(number, name)| {
        notes.push(format!("the collection {name} is not in the archive: it is removed"));
        Removed { name: name.clone(), old: format!("{anchor}.gone.{number}") }
    });
    let removed = removed.collect();
    if let Some(taken) = targets.iter().find(|target| collections.contains(&target.shadow)) {
        let what = "the name for a restored collection is taken";
        return Err(Error::new(ErrorKind::AlreadyExists, what).on(&taken.shadow));
    }
    if merge && targets.iter().any(|target| target.was != Was::Free) {
        notes.push(
            "Qdrant cannot be locked: of points that are changed while the commit runs, the last \
             writer wins; earlier changes are seen and refused, by the process that read them"
                .to_owned(),
        );
    }
    let left = stage::left(&collections, &anchor);
    if !left.is_empty() {
        notes.push(format!(
            "collections of restores that never ended lie on the server: {}",
            left.join(", ")
        ));
    }
    // Notes of other restores are nobody's aliases.
    let aliases: BTreeMap<_, _> =
        aliases.into_iter().filter(|(alias, _)| !stage::is_ours(alias)).collect();
    Ok((Token { anchor, merge, targets, removed, aliases }, notes))
}

/// Compares what the manifest says of vectors with what is live.
async fn same_vectors(
    client: &Client,
    options: &QdrantOptions,
    token: &Token,
    info: &BTreeMap<String, CollectionInfo>,
) -> Result<()> {
    for target in token.targets.iter().filter(|target| target.was != Was::Free) {
        let Some(restored) = info.get(&target.name) else { continue };
        let live = client.settings(target.place()).await?;
        Vectors {
            others: options.other_vectors,
            adds: token.adds_to(target),
            left_out: &target.left_out,
        }
        .check(&target.name, restored, &live.info(options.model_of(&target.name))?)?;
    }
    Ok(())
}
