//! Constraints and indexes: read from the server, kept in schema documents, made again.

use backup_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    client::{Client, Row, Statement},
    marks::is_marked,
    names::{Kind, cypher},
    value::Value,
};

/// What recreates a collection, or with the name `(schema)` all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// The labels that every node of the collection has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<Vec<String>>,
    /// The type of its relationships.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) relationship: Option<String>,
    /// The properties that make up the keys of its nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) key: Vec<String>,
    #[serde(default)]
    pub(crate) constraints: Vec<Object>,
    #[serde(default)]
    pub(crate) indexes: Vec<Object>,
}

/// A constraint or an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    pub(crate) name: String,
    /// As the server calls it: `UNIQUENESS`, `RANGE`, `FULLTEXT`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `NODE` or `RELATIONSHIP`.
    pub(crate) entity: String,
    /// Labels or types that it is about; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) on: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) properties: Vec<String>,
    /// What a constraint of types asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) property_type: Option<String>,
    /// Provider and configuration, as values of records.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub(crate) options: Json,
}

/// All constraints and indexes of a database, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Objects {
    pub(crate) constraints: Vec<Object>,
    /// Without those that belong to constraints.
    pub(crate) indexes: Vec<Object>,
}

impl Objects {
    pub(crate) async fn read(client: &Client) -> Result<Self> {
        let constraints = client.ask(&Statement::new("SHOW CONSTRAINTS YIELD *")).await?;
        let indexes = client.ask(&Statement::new("SHOW INDEXES YIELD *")).await?;
        let own = |row: &&Row| matches!(row.get("owningConstraint"), Ok(Value::Null));
        let live = |object: &Object| !is_marked(&object.name);
        let mut objects = Self {
            constraints: constraints.iter().map(Object::read).collect::<Result<_>>()?,
            indexes: indexes.iter().filter(own).map(Object::read).collect::<Result<_>>()?,
        };
        objects.constraints.retain(live);
        objects.indexes.retain(live);
        objects.constraints.sort_by(|a, b| a.name.cmp(&b.name));
        objects.indexes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Those that concern a collection.
    pub(crate) fn of(&self, kind: &Kind) -> Self {
        let chosen = |objects: &[Object]| {
            objects.iter().filter(|object| object.concerns(kind)).cloned().collect()
        };
        Self { constraints: chosen(&self.constraints), indexes: chosen(&self.indexes) }
    }

    /// Whether there is what a new database does not have by itself.
    pub(crate) fn is_special(&self) -> bool {
        let lookups = self.indexes.iter().filter(|index| index.kind == "LOOKUP").count();
        !self.constraints.is_empty() || lookups != 2 || self.indexes.len() != lookups
    }

    /// The document of a collection.
    pub(crate) fn document(&self, kind: &Kind, key: Vec<String>) -> Document {
        let Self { constraints, indexes } = self.of(kind);
        let (labels, relationship) = match kind {
            Kind::Nodes(labels) => (Some(labels.clone()), None),
            Kind::Relationships(name) => (None, Some(name.clone())),
            Kind::Schema => (None, None),
        };
        Document { labels, relationship, key, constraints, indexes }
    }
}

impl Document {
    pub(crate) fn to_json(&self) -> Result<Json> {
        serde_json::to_value(self).map_err(|e| Error::adapter("a schema is no JSON").because(e))
    }

    /// Reads the document of a collection of an archive.
    pub(crate) fn from_json(collection: &str, document: &Json) -> Result<Self> {
        serde_json::from_value(document.clone()).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the schema of a collection of a graph cannot be read")
                .on(collection)
                .because(e)
        })
    }

    /// Refuses a document that is not of the collection.
    pub(crate) fn check(&self, collection: &str, kind: &Kind) -> Result<()> {
        let fits = match kind {
            Kind::Nodes(labels) => self.labels.as_ref() == Some(labels),
            Kind::Relationships(name) => self.relationship.as_ref() == Some(name),
            Kind::Schema => self.labels.is_none() && self.relationship.is_none(),
        };
        if fits {
            return Ok(());
        }
        let what = "the schema is one of other labels, or of another type";
        Err(Error::new(ErrorKind::Incompatible, what).on(collection).advise(
            "restore collections of a graph under their own names: relationships name them",
        ))
    }
}

impl Object {
    fn read(row: &Row) -> Result<Self> {
        let property_type = row.get("propertyType").ok().and_then(Value::as_text);
        let options = match row.get("options")? {
            Value::Null => Json::Null,
            options => serde_json::from_str(&options.to_json()?)
                .map_err(|e| Error::adapter("options are no JSON").because(e))?,
        };
        Ok(Self {
            name: row.text("name")?.to_owned(),
            kind: row.text("type")?.to_owned(),
            entity: row.text("entityType")?.to_owned(),
            on: row.texts("labelsOrTypes")?,
            properties: row.texts("properties")?,
            property_type: property_type.map(str::to_owned),
            options,
        })
    }

    fn concerns(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Schema => true,
            Kind::Nodes(labels) => {
                self.entity == "NODE" && self.on.iter().any(|label| labels.contains(label))
            }
            Kind::Relationships(name) => self.entity == "RELATIONSHIP" && self.on.contains(name),
        }
    }

    /// Whether nodes with it are told apart by its properties.
    pub(crate) fn is_key_of_nodes(&self) -> bool {
        self.entity == "NODE"
            && matches!(self.kind.as_str(), "UNIQUENESS" | "NODE_PROPERTY_UNIQUENESS" | "NODE_KEY")
    }

    /// What makes it, under another name if one is given. Of an archive, whose text nobody
    /// vouches for, only names and options go into the statement, each in its own form.
    pub(crate) fn create(&self, name: Option<&str>) -> Result<Statement> {
        let name = cypher(name.unwrap_or(&self.name));
        let relationship = match self.entity.as_str() {
            "NODE" => false,
            "RELATIONSHIP" => true,
            _ => return Err(self.unknown()),
        };
        let on = self.on.iter().map(|name| cypher(name)).collect::<Vec<_>>().join("|");
        let entity = match (relationship, on.is_empty()) {
            (false, true) => "(e)".to_owned(),
            (false, false) => format!("(e:{on})"),
            (true, true) => "()-[e]-()".to_owned(),
            (true, false) => format!("()-[e:{on}]-()"),
        };
        let properties: Vec<_> =
            self.properties.iter().map(|name| format!("e.{}", cypher(name))).collect();
        let properties = properties.join(", ");
        let constraint = |what: &str| {
            format!(
                "CREATE CONSTRAINT {name} IF NOT EXISTS FOR {entity} REQUIRE ({properties}) {what}"
            )
        };
        let index = |kind: &str| {
            format!("CREATE {kind} INDEX {name} IF NOT EXISTS FOR {entity} ON ({properties})")
        };
        let text = match self.kind.as_str() {
            "UNIQUENESS"
            | "NODE_PROPERTY_UNIQUENESS"
            | "RELATIONSHIP_UNIQUENESS"
            | "RELATIONSHIP_PROPERTY_UNIQUENESS" => constraint("IS UNIQUE"),
            "NODE_KEY" => constraint("IS NODE KEY"),
            "RELATIONSHIP_KEY" => constraint("IS RELATIONSHIP KEY"),
            "NODE_PROPERTY_EXISTENCE" | "RELATIONSHIP_PROPERTY_EXISTENCE" => {
                constraint("IS NOT NULL")
            }
            "NODE_PROPERTY_TYPE" | "RELATIONSHIP_PROPERTY_TYPE" => {
                let wanted = self.property_type.as_deref().unwrap_or_default();
                let plain = |c: char| c.is_ascii_uppercase() || " <>|,()0123456789".contains(c);
                if wanted.is_empty() || !wanted.chars().all(plain) {
                    return Err(self.unknown());
                }
                constraint(&format!("IS :: {wanted}"))
            }
            "RANGE" => index("RANGE"),
            "TEXT" => index("TEXT"),
            "POINT" => index("POINT"),
            "VECTOR" => index("VECTOR"),
            "FULLTEXT" => format!(
                "CREATE FULLTEXT INDEX {name} IF NOT EXISTS FOR {entity} ON EACH [{properties}]"
            ),
            "LOOKUP" => {
                let what = if relationship { "type" } else { "labels" };
                return Ok(Statement::new(format!(
                    "CREATE LOOKUP INDEX {name} IF NOT EXISTS FOR {entity} ON EACH {what}(e)"
                )));
            }
            _ => return Err(self.unknown()),
        };
        let options = self.options()?;
        Ok(match options {
            Value::Map(members) if !members.is_empty() => {
                Statement::new(format!("{text} OPTIONS $options"))
                    .with("options", Value::Map(members))
            }
            _ => Statement::new(text),
        })
    }

    // Empty configurations are left out, because some kinds take none.
    fn options(&self) -> Result<Value> {
        let Value::Map(members) = Value::from_json(&self.options)? else { return Ok(Value::Null) };
        let empty = |value: &Value| matches!(value, Value::Map(members) if members.is_empty());
        let members = members.into_iter().filter(|(_, value)| !empty(value)).collect();
        Ok(Value::Map(members))
    }

    /// What removes it.
    pub(crate) fn drop_constraint(name: &str) -> Statement {
        Statement::new(format!("DROP CONSTRAINT {} IF EXISTS", cypher(name)))
    }

    /// What removes it.
    pub(crate) fn drop_index(name: &str) -> Statement {
        Statement::new(format!("DROP INDEX {} IF EXISTS", cypher(name)))
    }

    fn unknown(&self) -> Error {
        let what = "a constraint or index is of a kind that is not known";
        Error::new(ErrorKind::Unsupported, what)
            .on(format!("{} {} of {}", self.kind, self.name, self.entity))
            .advise("use a newer version of backup-kit")
    }
}
