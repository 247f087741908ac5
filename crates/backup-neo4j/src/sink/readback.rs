//! Reading what is staged, or live after the switch, as a backup would.

use std::collections::BTreeMap;

use backup_core::{Cancel, Content, Result};

use crate::{
    client::Client,
    marks::{View, World},
    names::Kind,
    read::{Known, Nodes, Read, Relationships},
    records::Keys,
    schema::Document,
    sink::switch,
};

/// Counts and digests of a world, by collection. Those of the archive are there in any case.
pub(crate) async fn tally(
    client: &Client,
    world: World,
    documents: &BTreeMap<String, Document>,
    cancel: &Cancel,
) -> Result<Content> {
    let view = view(world, documents)?;
    let mut content = Content::new();
    for name in documents.keys() {
        content.collections.entry(name.clone()).or_default();
    }
    let mut count = |read: Read| {
        if let Read::Batch(batch) = read {
            let name = batch.collection().to_owned();
            content.collections.entry(name).or_default().add_batch(&batch);
        }
    };
    let mut nodes = Nodes::begin(client, &view, None, false, Known::default()).await?;
    while let Some((read, _)) = nodes.next().await? {
        cancel.check()?;
        count(read);
    }
    let types = "db.relationshipTypes() YIELD relationshipType AS name";
    let types = switch::names(client, types, world).await?;
    if !types.is_empty() {
        let known = nodes.known();
        let mut relationships = Relationships::begin(client, &view, &types, known, None).await?;
        while let Some(read) = relationships.next().await? {
            cancel.check()?;
            count(read);
        }
    }
    Ok(content)
}

fn view(world: World, documents: &BTreeMap<String, Document>) -> Result<View> {
    let mut keys = BTreeMap::new();
    for (name, document) in documents {
        if let Kind::Nodes(labels) = Kind::parse(name)? {
            keys.insert(labels, document.key.clone());
        }
    }
    Ok(View { world, keys: Keys::archived(keys), numbered: true })
}
