//! What can be known before a restore touches anything.

use backup_core::{Error, ErrorKind, Result, StagePlan, Switch, WriteMode};

use crate::{
    client::{Client, Statement},
    describe::Server,
    marks::is_marked,
    names::Kind,
    options::Neo4jOptions,
    sink::{
        journal::{busy, marks},
        token::{Token, Way},
    },
};

/// Bytes of the server's memory that one transaction needs to hide or show a node or a
/// relationship: measured, see docs/decisions/0082-neo4j-switch.md.
const NODE: u64 = 1200;
const RELATIONSHIP: u64 = 5000;

/// The same to merge one.
const MERGED: u64 = 3500;

/// What a transaction may need of the server's memory where the server does not say.
const UNKNOWN: u64 = 64 << 20;

pub(super) struct Looked {
    pub(super) token: Token,
    pub(super) switch: Switch,
    pub(super) notes: Vec<String>,
}

pub(super) async fn look(
    client: &Client,
    options: &Neo4jOptions,
    plan: &StagePlan,
) -> Result<Looked> {
    if let Some(name) = plan.content.blobs.keys().next() {
        let what = "a dump of a Neo4j database cannot be restored over Bolt";
        return Err(Error::new(ErrorKind::Unsupported, what).on(name));
    }
    let mut staged = (0, 0);
    for (name, tally) in &plan.content.collections {
        match Kind::parse(name)? {
            Kind::Nodes(labels) => {
                check(name, &labels)?;
                staged.0 += tally.records;
            }
            Kind::Relationships(kind) => {
                check(name, &[kind])?;
                staged.1 += tally.records;
            }
            Kind::Schema => {}
        }
    }
    let server = Server::of(client).await?;
    let version = server.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if version.is_none_or(|major| major < 5) {
        let what = "this version of Neo4j is too old to be restored into";
        return Err(Error::new(ErrorKind::Unsupported, what)
            .on(server.version)
            .advise("use Neo4j 5 or later"));
    }
    if let Some(other) = marks(client).await?.into_iter().find(|mark| mark.id != plan.restore_id) {
        return Err(busy(&other.id));
    }
    let mut notes = Vec::new();
    let needs = if plan.mode == WriteMode::Merge {
        notes.push(
            "records are added one by one, and what they replace is kept until the restore has ended"
                .to_owned(),
        );
        // Properties come, and go into what was staged.
        (staged.0 + staged.1).saturating_mul(MERGED).saturating_add(plan.bytes.saturating_mul(2))
    } else {
        let live = (count(client, "(n)").await?, count(client, "()-[n]->()").await?);
        notes.push(format!(
            "{} nodes and {} relationships are replaced, and kept hidden until the restore has ended",
            live.0, live.1
        ));
        (live.0 + staged.0)
            .saturating_mul(NODE)
            .saturating_add((live.1 + staged.1).saturating_mul(RELATIONSHIP))
            .saturating_add(plan.bytes)
    };
    let limit = match options.transaction {
        Some(bytes) => bytes,
        None => memory(client).await.map_or(UNKNOWN, |bytes| bytes / 2),
    };
    let (way, switch) = if needs <= limit {
        (Way::Once, Switch::AtomicCopy)
    } else {
        notes.push(format!(
            "one transaction would need about {needs} bytes of the server's memory and may need \
             {limit}: the graph is switched in batches, and readers may see old and new"
        ));
        (Way::Batches, Switch::Stepwise)
    };
    let token = Token { id: plan.restore_id.clone(), way };
    token.check()?;
    Ok(Looked { token, switch, notes })
}

fn check(collection: &str, names: &[String]) -> Result<()> {
    if names.iter().any(|name| is_marked(name)) {
        let what = "a label or type has a name that only a restore gives";
        return Err(Error::new(ErrorKind::Unsupported, what).on(collection));
    }
    Ok(())
}

// The server counts as it goes, so that the answer costs nothing.
async fn count(client: &Client, pattern: &str) -> Result<u64> {
    let all = Statement::new(format!("MATCH {pattern} RETURN count(n) AS count"));
    let rows = client.ask(&all).await?;
    let count = rows.first().map_or(Ok(0), |row| row.integer("count"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What the server lets one transaction have, where it says so.
async fn memory(client: &Client) -> Option<u64> {
    let settings = Statement::new(
        "SHOW SETTINGS 'dbms.memory.transaction.total.max', 'db.memory.transaction.total.max', \
         'db.memory.transaction.max' YIELD value RETURN value",
    );
    let rows = client.ask(&settings).await.ok()?;
    let limits = rows.iter().filter_map(|row| bytes(row.text("value").ok()?));
    limits.filter(|limit| *limit > 0).min()
}

/// Reads `358.40MiB`.
fn bytes(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    Some((number * (1_u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use neo4j_testserver::shared;

    use super::*;
    use crate::{
        marks::World,
        options::Neo4jStore,
        sink::{
            merge::{Identity, Step, Work},
            switch,
        },
        testing::runtime,
    };

    // The figures of docs/decisions/0082-neo4j-switch.md, which a newer server might change.
    #[test]
    fn a_move_needs_no_more_than_the_plan_counts() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let made = "UNWIND range(1, 10000) AS i \
                        CREATE (:A:B {i: i})-[:R {i: i, t: 'some text', u: 1.5}]->(:A:C {i: i})";
            client.ask(&Statement::new(made)).await.unwrap();
            for (from, to) in [(World::Live, World::Old), (World::Old, World::Live)] {
                let moves = switch::moves(&client, from, to).await.unwrap();
                let mut transaction = client.begin().await.unwrap();
                for one in &moves {
                    transaction.run(&one.whole()).await.unwrap();
                }
                let needed = used(&client).await;
                let counted = 20_000 * NODE + 10_000 * RELATIONSHIP;
                assert!(needed > counted / 4, "{needed} of {counted}");
                assert!(needed < counted, "{needed} of {counted}");
                transaction.commit().await.unwrap();
            }
        });
    }

    // Half of the records are live already. As above, of a merge.
    #[test]
    fn a_merge_needs_no_more_than_the_plan_counts() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let options = Neo4jStore::options(&server.bolt_url());
            let client = Client::new(&options).unwrap();
            for made in [
                "CREATE CONSTRAINT FOR (n:A) REQUIRE n.i IS UNIQUE",
                "UNWIND range(1, 5000) AS i CREATE (:A {i: i})-[:R {i: i, t: 'other text'}]->(:A {i: -i})",
                "UNWIND range(1, 10000) AS i \
                 CREATE (:`backup-kit:staged`:`backup-kit:staged:A` {i: i, t: 'some text', u: 1.5})\
                 -[:`backup-kit:staged:R` {i: i, t: 'some text', u: 1.5, `backup-kit:number`: 0}]->\
                 (:`backup-kit:staged`:`backup-kit:staged:A` {i: -i, t: 'some text', u: 1.5})",
            ] {
                client.ask(&Statement::new(made)).await.unwrap();
            }
            let identity = Identity::live(&client, &options).await.unwrap();
            let kinds = ["A", "[R]"].map(|name| Kind::parse(name).unwrap());
            let steps = [Step::Match, Step::Apply];
            let work = Work::of(&client, &identity, &kinds, &steps).await.unwrap();
            let mut transaction = client.begin().await.unwrap();
            work.whole(&mut transaction).await.unwrap();
            let needed = used(&client).await;
            let counted = 30_000 * MERGED;
            assert!(needed > counted / 4, "{needed} of {counted}");
            assert!(needed < counted, "{needed} of {counted}");
            transaction.rollback().await.unwrap();
        });
    }

    /// Bytes of memory that the server counts for its transactions.
    async fn used(client: &Client) -> u64 {
        let asked = "SHOW TRANSACTIONS YIELD estimatedUsedHeapMemory AS bytes \
                     RETURN max(bytes) AS bytes";
        let rows = client.ask(&Statement::new(asked)).await.unwrap();
        u64::try_from(rows[0].integer("bytes").unwrap()).unwrap()
    }

    #[test]
    fn sizes_read_as_the_server_writes_them() {
        for (text, size) in [
            ("0B", Some(0)),
            ("358.50MiB", Some(375_914_496)),
            ("1g", Some(1 << 30)),
            ("2.00GiB", Some(2 << 30)),
            ("1024", Some(1024)),
            ("", None),
            ("fast", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
