//! Connections to a server, or to the primaries of a cluster.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backup_core::{Error, ErrorKind, Result};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{io::AsyncReadExt, runtime::Handle};

use crate::{error, reply, slots::Ranges};

/// How servers are reached. Every connection is made anew, so that none holds a state that
/// another user of it does not know of.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    sentinel: Option<String>,
    timeout: Duration,
    runtime: Handle,
    /// Whether fields of hashes may expire.
    field_deadlines: OnceLock<bool>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A server that takes writes, and in a cluster the slots that it has.
#[derive(Debug, Clone)]
pub(crate) struct Primary {
    pub(crate) address: Option<Address>,
    /// `None`: it is not in a cluster.
    pub(crate) slots: Option<Ranges>,
}

/// How one server is reached, secrets included.
pub(crate) struct Peer {
    pub(crate) addr: ConnectionAddr,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) root_certificate: Option<Vec<u8>>,
    /// How long it may be silent.
    pub(crate) timeout: Duration,
}

/// A connection to one logical database of one server. Clones share it.
#[derive(Clone)]
pub(crate) struct Node {
    connection: MultiplexedConnection,
    name: Arc<str>,
    field_deadlines: bool,
}

impl Client {
    pub(crate) fn new(
        info: ConnectionInfo,
        certificates: Option<TlsCertificates>,
        sentinel: Option<String>,
        timeout: Duration,
    ) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|_| {
            let what = "a store of Redis needs a Tokio runtime";
            Error::new(ErrorKind::InvalidInput, what).advise("open it within a runtime")
        })?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // Stays as it is where the host has chosen one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let inner = Inner {
            info,
            certificates,
            sentinel,
            timeout,
            runtime,
            field_deadlines: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs work on the runtime of the store, whichever executor asks for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.inner.runtime.spawn(work).await {
            Ok(done) => done,
            Err(failed) => {
                Err(Error::adapter("work on the runtime of a store broke off").because(failed))
            }
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// What of the address may be shown.
    pub(crate) fn shown(&self) -> String {
        self.inner.info.addr().to_string()
    }

    /// The logical database that the address names.
    pub(crate) fn database(&self) -> u32 {
        u32::try_from(self.inner.info.redis_settings().db()).unwrap_or(0)
    }

    /// The server that the address names, or that the sentinels name as primary.
    pub(crate) async fn first(&self, db: u32) -> Result<Node> {
        self.at(None, db).await
    }

    /// A server of the cluster, or the one of the address.
    pub(crate) async fn at(&self, address: Option<&Address>, db: u32) -> Result<Node> {
        self.connect(self.addr(address).await?, db).await
    }

    /// What a connection of another kind needs to such a server.
    pub(crate) async fn peer(&self, address: Option<&Address>) -> Result<Peer> {
        let settings = self.inner.info.redis_settings();
        Ok(Peer {
            addr: self.addr(address).await?,
            username: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            root_certificate: self.inner.certificates.as_ref().and_then(|c| c.root_cert.clone()),
            timeout: self.inner.timeout,
        })
    }

    async fn addr(&self, address: Option<&Address>) -> Result<ConnectionAddr> {
        let named = self.inner.info.addr();
        let Address { host, port } = match (address, &self.inner.sentinel) {
            (Some(address), _) => address.clone(),
            (None, Some(name)) => self.ask_sentinel(name).await?,
            (None, None) => return Ok(named.clone()),
        };
        Ok(match named {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        })
    }

    async fn ask_sentinel(&self, name: &str) -> Result<Address> {
        let sentinel = self.connect(self.inner.info.addr().clone(), 0).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut found = reply::list(sentinel.one(&ask).await?)?.into_iter();
        let (Some(host), Some(port)) = (found.next(), found.next()) else {
            let what = "the sentinel knows no primary of this name";
            return Err(Error::new(ErrorKind::NotFound, what).on(name));
        };
        let port = u16::try_from(reply::integer(&port)?).map_err(|_| reply::odd("a port"))?;
        Ok(Address { host: reply::text(host)?, port })
    }

    async fn connect(&self, addr: ConnectionAddr, db: u32) -> Result<Node> {
        let name: Arc<str> = addr.to_string().into();
        let failed = |e| error::redis("the Redis server cannot be reached", e).on(&name);
        let settings = self.inner.info.redis_settings().clone().set_db(db.into());
        let settings = settings.set_skip_set_lib_name();
        let info = self.inner.info.clone().set_addr(addr).set_redis_settings(settings);
        let client = match &self.inner.certificates {
            Some(certificates) => redis::Client::build_with_tls(info, certificates.clone()),
            None => redis::Client::open(info),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.inner.timeout))
            .set_response_timeout(Some(self.inner.timeout));
        let client = client.map_err(failed)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                let error = failed(error);
                return Err(if error.kind() == ErrorKind::Unreachable {
                    said_first(client.get_connection_info().addr()).await.unwrap_or(error)
                } else {
                    error
                });
            }
        };
        let mut node = Node { connection, name, field_deadlines: false };
        node.field_deadlines = match self.inner.field_deadlines.get() {
            Some(known) => *known,
            None => {
                let asked = node.one(redis::cmd("COMMAND").arg("INFO").arg("HPEXPIRETIME")).await;
                let known = match asked {
                    // Here a server is noticed that hangs up, whatever it said before.
                    Err(_) => {
                        let ping = node.one(&redis::cmd("PING")).await;
                        if let Err(error) = ping
                            && error.kind() == ErrorKind::Unreachable
                        {
                            let addr = client.get_connection_info().addr();
                            return Err(said_first(addr).await.unwrap_or(error));
                        }
                        None
                    }
                    Ok(reply) => reply::list(reply).ok(),
                };
                let known = known.is_some_and(|list| list.first() != Some(&Value::Nil));
                *self.inner.field_deadlines.get_or_init(|| known)
            }
        };
        Ok(node)
    }

    /// Every server that takes writes.
    pub(crate) async fn primaries(&self) -> Result<Vec<Primary>> {
        let first = self.first(0).await?;
        if !first.info("cluster").await?.is("cluster_enabled", "1") {
            return Ok(vec![Primary { address: None, slots: None }]);
        }
        let slots = first.one(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let mut primaries: Vec<Primary> = Vec::new();
        let mut covered = 0;
        for range in reply::list(slots)? {
            let mut parts = reply::list(range)?.into_iter();
            let (Some(from), Some(to), Some(node)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(reply::odd("the slots of a cluster"));
            };
            let slot = |value: &Value| -> Result<u16> {
                u16::try_from(reply::integer(value)?).map_err(|_| reply::odd("a slot"))
            };
            let (from, to) = (slot(&from)?, slot(&to)?);
            covered += u32::from(to) + 1 - u32::from(from);
            let address = self.address_of(node)?;
            match primaries.iter_mut().find(|p| p.address.as_ref() == Some(&address)) {
                Some(known) => known.slots.get_or_insert_default().0.push((from, to)),
                None => primaries.push(Primary {
                    address: Some(address),
                    slots: Some(Ranges(vec![(from, to)])),
                }),
            }
        }
        if covered != 16_384 {
            let what = format!("the cluster has {covered} of 16384 slots");
            return Err(Error::new(ErrorKind::Unreachable, what)
                .advise("wait until the cluster is whole again"));
        }
        primaries.sort_by_key(|primary| primary.slots.as_ref().map(|ranges| ranges.0[0]));
        Ok(primaries)
    }

    fn address_of(&self, node: Value) -> Result<Address> {
        let mut parts = reply::list(node)?.into_iter();
        let host = match parts.next() {
            None | Some(Value::Nil) => String::new(),
            Some(host) => reply::text(host)?,
        };
        let port = parts.next().ok_or_else(|| reply::odd("a node of a cluster"))?;
        let port = u16::try_from(reply::integer(&port)?).map_err(|_| reply::odd("a port"))?;
        // A node that does not know its own address: the one that was asked.
        let host = match (host.is_empty(), self.inner.info.addr()) {
            (true, ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => {
                host.clone()
            }
            _ => host,
        };
        Ok(Address { host, port })
    }
}

/// What a server says by itself when it does not want a connection: protected mode. It hangs up
/// at once, so that who sends a command first does not read it.
async fn said_first(addr: &ConnectionAddr) -> Option<Error> {
    let ConnectionAddr::Tcp(host, port) = addr else { return None };
    let listen = async {
        let mut stream = tokio::net::TcpStream::connect((host.as_str(), *port)).await.ok()?;
        let mut said = vec![0; 4096];
        let len = stream.read(&mut said).await.ok()?;
        String::from_utf8(said[..len].to_vec()).ok()
    };
    let said = tokio::time::timeout(Duration::from_secs(1), listen).await.ok()??;
    let (code, detail) = said.strip_prefix('-')?.split_once(' ')?;
    Some(error::refused("the Redis server does not take the connection", code, detail).on(addr))
}

impl Node {
    /// The replies to all commands, in their order; errors of the server stand in their places.
    pub(crate) async fn all(&self, commands: &Pipeline) -> Result<Vec<Value>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let replies = connection.req_packed_commands(commands, 0, commands.len()).await;
        replies.map_err(|e| error::redis("the connection to Redis broke", e).on(&self.name))
    }

    /// As [`all`](Self::all); the first error is returned.
    pub(crate) async fn every(&self, what: &str, commands: &Pipeline) -> Result<Vec<Value>> {
        let replies = self.all(commands).await?;
        replies.into_iter().map(|value| reply::checked(what, value)).collect()
    }

    pub(crate) async fn one(&self, command: &Cmd) -> Result<Value> {
        let mut connection = self.connection.clone();
        let reply = connection.req_packed_command(command).await;
        let what = "the Redis server refused a command";
        reply.and_then(Value::extract_error).map_err(|e| error::redis(what, e).on(&self.name))
    }

    /// Commands that run together; `None` where a watched key was changed.
    pub(crate) async fn transaction(&self, what: &str, commands: &Pipeline) -> Result<Option<()>> {
        let mut all = Pipeline::with_capacity(commands.len() + 2);
        all.cmd("MULTI");
        for command in commands.cmd_iter() {
            all.add_command(command.clone());
        }
        all.cmd("EXEC");
        let mut replies = self.all(&all).await?;
        let exec = replies.pop().ok_or_else(|| reply::odd("EXEC"))?;
        // Why it was refused stands in the place of the command.
        for queued in replies {
            reply::checked(what, queued)?;
        }
        match reply::checked(what, exec)? {
            Value::Nil => Ok(None),
            done => {
                for reply in reply::list(done)? {
                    reply::checked(what, reply)?;
                }
                Ok(Some(()))
            }
        }
    }

    pub(crate) async fn info(&self, section: &str) -> Result<Info> {
        let text = self.one(redis::cmd("INFO").arg(section)).await?;
        Ok(Info(reply::text(text)?))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether fields of hashes may expire: since Redis 7.4.
    pub(crate) fn has_field_deadlines(&self) -> bool {
        self.field_deadlines
    }
}

/// The reply to `INFO`.
pub(crate) struct Info(String);

impl Info {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.lines().find_map(|(known, value)| (known == name).then_some(value))
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once(':'))
    }
}
