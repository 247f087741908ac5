//! Removing what a restore has made.

use backup_core::{Cancel, Result};

use crate::{
    client::{Client, Statement},
    marks::{NUMBER, World},
    names::cypher,
    sink::{
        journal::{Journal, State},
        rules, switch,
    },
};

/// Numbers of nodes that are looked at in one transaction.
const PAGE: i64 = 100_000;

/// Removes all nodes and relationships of a world, never the live one.
pub(crate) async fn world(
    client: &Client,
    journal: &Journal,
    state: State,
    world: World,
) -> Result<()> {
    let Some(base) = world.base() else { return Ok(()) };
    let cancel = Cancel::new();
    let types = "db.relationshipTypes() YIELD relationshipType AS name";
    for name in switch::names(client, types, world).await? {
        let find = format!("MATCH ()-[n:{}]->()", cypher(&world.name(&name)));
        switch::rounds(client, journal, state, &find, "DELETE n", &cancel).await?;
    }
    let find = format!("MATCH (n:{})", cypher(base));
    switch::rounds(client, journal, state, &find, "DETACH DELETE n", &cancel).await
}

/// Removes the archive's numbers from live nodes.
pub(crate) async fn numbers(client: &Client, journal: &Journal, state: State) -> Result<()> {
    let last = Statement::new("MATCH (n) RETURN coalesce(max(id(n)), -1) AS last");
    let last = client.ask(&last).await?.first().map_or(Ok(-1), |row| row.integer("last"))?;
    let number = cypher(NUMBER);
    let page = journal.guarded(
        state,
        &format!(
            "UNWIND range($from, $to) AS i MATCH (n) WHERE id(n) = i AND n.{number} IS NOT NULL \
             REMOVE n.{number} RETURN count(*) AS done"
        ),
    );
    for from in (0..=last).step_by(PAGE as usize) {
        client
            .ask(&page.clone().with("from", from).with("to", (from + PAGE - 1).min(last)))
            .await?;
    }
    Ok(())
}

/// The last thing that is left of a restore.
pub(crate) async fn rest(client: &Client, journal: &Journal) -> Result<()> {
    rules::sweep(client).await?;
    journal.remove().await
}
