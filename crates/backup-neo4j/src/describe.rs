//! What the store says of itself.

use backup_core::{Adapter, Capabilities, CollectionDescription, Description, Result, async_trait};

use crate::{
    client::{Client, Statement},
    marks::{World, is_marked},
    names::{Kind, SCHEMA, cypher},
    options::Neo4jStore,
    schema::Objects,
};

#[async_trait]
impl Adapter for Neo4jStore {
    fn kind(&self) -> &'static str {
        crate::KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.records = true;
        can.merge = true;
        can.undo = true;
        can.collections = true;
        can
    }

    async fn describe(&self) -> Result<Description> {
        let client = self.client.clone();
        let mut description = self.client.run(async move { describe(&client).await }).await?;
        description.metadata.insert("url".to_owned(), self.client.place().into());
        Ok(description)
    }
}

/// Version, edition and the name of the database.
pub(crate) struct Server {
    pub(crate) version: String,
    pub(crate) edition: String,
    pub(crate) database: String,
}

impl Server {
    pub(crate) async fn of(client: &Client) -> Result<Self> {
        let kernel = "CALL dbms.components() YIELD name, versions, edition \
                      WHERE name = 'Neo4j Kernel' RETURN versions[0] AS version, edition";
        let mut server =
            Self { version: String::new(), edition: String::new(), database: String::new() };
        if let Some(row) = client.ask(&Statement::new(kernel)).await?.first() {
            server.version = row.text("version")?.to_owned();
            server.edition = row.text("edition")?.to_owned();
        }
        let named = Statement::new("CALL db.info() YIELD name RETURN name");
        if let Some(row) = client.ask(&named).await?.first() {
            server.database = row.text("name")?.to_owned();
        }
        Ok(server)
    }
}

async fn describe(client: &Client) -> Result<Description> {
    let server = Server::of(client).await?;
    let mut description = Description::new("Neo4j");
    description.version = Some(server.version);
    for (name, text) in [("edition", server.edition), ("database", server.database)] {
        description.metadata.insert(name.to_owned(), text.into());
    }
    let objects = Objects::read(client).await?;
    if objects.is_special() {
        description.collections.push(CollectionDescription::new(SCHEMA));
    }
    for (kind, count) in collections(client).await? {
        let mut collection = CollectionDescription::new(kind.name());
        collection.records = u64::try_from(count).ok();
        description.collections.push(collection);
    }
    Ok(description)
}

/// Every collection that has records, with their number.
pub(crate) async fn collections(client: &Client) -> Result<Vec<(Kind, i64)>> {
    let mut found = Vec::new();
    let sets = Statement::new("MATCH (n) RETURN labels(n) AS labels, count(*) AS count");
    for row in client.ask(&sets).await? {
        if let Some(labels) = World::Live.labels(row.texts("labels")?) {
            found.push((Kind::nodes(labels), row.integer("count")?));
        }
    }
    // The server counts types as it goes, so that these answers cost nothing.
    let types =
        Statement::new("CALL db.relationshipTypes() YIELD relationshipType AS name RETURN name");
    for row in client.ask(&types).await? {
        let name = row.text("name")?.to_owned();
        if is_marked(&name) {
            continue;
        }
        let count = format!("MATCH ()-[r:{}]->() RETURN count(r) AS count", cypher(&name));
        let count = client.ask(&Statement::new(count)).await?;
        let count = count.first().map_or(Ok(0), |row| row.integer("count"))?;
        if count > 0 {
            found.push((Kind::Relationships(name), count));
        }
    }
    found.sort();
    // The same labels in another order are the same collection.
    found.dedup_by(|again, first| {
        let same = again.0 == first.0;
        if same {
            first.1 += again.1;
        }
        same
    });
    Ok(found)
}
