//! What servers have, read for a backup.

use backup_core::{
    CollectionEnd, Error, ErrorKind, Notice, NoticeKind, Part, Result, Schema,
    manifest::CollectionInfo,
};
use bytes::Bytes;
use redis::Cmd;

use super::{Extra, Named};
use crate::{
    RedisStore,
    client::{Node, Primary},
    options::RedisOptions,
    reply,
};

impl Extra {
    /// What a server has now.
    pub(crate) async fn read(self, node: &Node, options: &RedisOptions) -> Result<Named> {
        let ask = |words: &[&str]| {
            let mut ask = Cmd::new();
            ask.arg(words);
            ask
        };
        let pair = |name, text| Ok::<_, Error>((reply::bytes(name)?, reply::bytes(text)?));
        match self {
            Self::Functions => {
                let list = node.one(&ask(&["FUNCTION", "LIST", "WITHCODE"])).await?;
                let library = |library| {
                    let mut library = reply::pairs(library)?;
                    let mut take = |name: &str| {
                        reply::take(&mut library, name).ok_or_else(|| reply::odd("FUNCTION LIST"))
                    };
                    pair(take("library_name")?, take("library_code")?)
                };
                reply::list(list)?.into_iter().map(library).collect()
            }
            Self::Users => {
                let list = reply::list(node.one(&ask(&["ACL", "LIST"])).await?)?;
                list.into_iter().map(|line| user(&reply::bytes(line)?)).collect()
            }
            Self::Settings => {
                let mut get = ask(&["CONFIG", "GET"]);
                get.arg(&options.settings);
                let found = reply::pairs(node.one(&get).await?)?;
                let found = found.into_iter().map(|(name, value)| pair(name, value));
                let found: Named = found.collect::<Result<_>>()?;
                let missing = options.settings.iter().find(|s| !found.contains_key(s.as_bytes()));
                match missing {
                    None => Ok(found),
                    Some(name) => {
                        let what = "the server has no setting of this name";
                        Err(Error::new(ErrorKind::Unsupported, what).on(name))
                    }
                }
            }
        }
    }
}

/// A line of `ACL LIST`: the word `user`, the name, the rules. One rule, which all users have
/// unless they have its opposite, is told by newer servers only.
fn user(line: &Bytes) -> Result<(Bytes, Bytes)> {
    let rest = line.strip_prefix(b"user ").ok_or_else(|| reply::odd("ACL LIST"))?;
    let name = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let rules = rest.get(name + 1..).unwrap_or_default().split(|byte| *byte == b' ');
    let rules: Vec<_> = rules.filter(|rule| *rule != b"sanitize-payload").collect();
    Ok((line.slice_ref(&rest[..name]), rules.join(&b' ').into()))
}

impl RedisStore {
    /// What the servers have of what is asked for, kind by kind: by server, the first one first.
    pub(crate) async fn read_extras(
        &self,
        primaries: &[Primary],
        asked: &[String],
    ) -> Result<Vec<(Extra, Vec<Named>)>> {
        let mut all = Vec::new();
        for extra in Extra::ALL {
            let name = extra.collection();
            let wanted = asked.is_empty() || asked.iter().any(|asked| asked == name);
            if !wanted || extra.check(&self.options).is_err() {
                continue;
            }
            let mut servers = Vec::new();
            for primary in primaries {
                let node = self.client.at(primary.address.as_ref(), 0).await?;
                let read = extra.read(&node, &self.options).await;
                servers.push(read.map_err(|error| error.on(name))?);
            }
            all.push((extra, servers));
        }
        Ok(all)
    }
}

/// The parts of what was read. `moved`: it was something else a moment before.
pub(crate) fn parts(all: Vec<(Extra, Vec<Named>)>, moved: bool) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (extra, servers) in all {
        let Some((first, others)) = servers.split_first() else { continue };
        let collection = extra.collection();
        let mut notice = |detail: &str| {
            parts.push(Part::Notice(Notice {
                kind: NoticeKind::Changed,
                collection: collection.to_owned(),
                subject: collection.to_owned(),
                detail: detail.to_owned(),
            }));
        };
        if others.iter().any(|other| other != first) {
            notice("the servers of the cluster differ: carried is what the first one has");
        }
        if moved {
            notice("was changed while the snapshot began, and may be of another moment");
        }
        parts.push(Part::Schema(schema(extra)));
        if !first.is_empty() {
            parts.push(Part::Records(extra.batch(first)?));
        }
        let mut end = CollectionEnd::default();
        collection.clone_into(&mut end.collection);
        end.count = Some(first.len() as u64);
        parts.push(Part::End(end));
    }
    Ok(parts)
}

fn schema(extra: Extra) -> Schema {
    Schema {
        collection: extra.collection().to_owned(),
        document: serde_json::json!({ "prefix": false }),
        info: CollectionInfo::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_alike_by_all_servers() {
        let line = |text: &'static str| user(&Bytes::from_static(text.as_bytes())).unwrap();
        let (name, rules) = line("user a on nopass sanitize-payload ~* (~b resetchannels +set)");
        assert_eq!(
            (&name[..], &rules[..]),
            (&b"a"[..], &b"on nopass ~* (~b resetchannels +set)"[..])
        );
        assert_eq!(line("user a on nopass ~* (~b resetchannels +set)"), (name, rules));
        assert_eq!(line("user b off skip-sanitize-payload").1, "off skip-sanitize-payload");
        assert!(user(&Bytes::from_static(b"nobody")).is_err());
    }
}
