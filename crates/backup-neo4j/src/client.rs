//! Statements and their answers; the only module that runs them.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    bolt::{self, Connection, Target},
    options::Neo4jOptions,
    value::Value,
};

/// Rows that the server sends before it is asked for more.
const FETCH: i64 = 2000;

/// Connections that are kept for the next statement, and for how long.
const KEPT: usize = 8;
const FRESH: Duration = Duration::from_secs(30);

/// One database of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    target: Target,
    runtime: Handle,
    address: String,
    database: Option<String>,
    patience: Duration,
    idle: Mutex<Vec<(Instant, Connection)>>,
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    text: Arc<str>,
    parameters: Vec<(String, Value)>,
}

/// One row of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    columns: Arc<[String]>,
    pub(crate) values: Vec<Value>,
}

/// The answer of a statement that runs in a transaction of its own, row by row. Dropped before
/// its end, the server gives the statement up.
pub(crate) struct Rows {
    client: Client,
    connection: Option<Connection>,
    columns: Arc<[String]>,
}

/// A transaction; dropped without a commit, the server takes it back.
pub(crate) struct Transaction {
    client: Client,
    connection: Connection,
}

/// A task that is not wanted any more when nobody waits for it.
struct Tied(AbortHandle);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    pub(crate) fn new(options: &Neo4jOptions) -> Result<Self> {
        let target = target(options)?;
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "a store at a Neo4j server needs a Tokio runtime")
                .because(e)
                .advise("open it within the application's runtime")
        })?;
        Ok(Self(Arc::new(Inner {
            target,
            runtime,
            address: options.url.clone(),
            database: options.database.clone(),
            patience: options.patience,
            idle: Mutex::default(),
        })))
    }

    /// Where this is, for people: the address, and the database if one was named.
    pub(crate) fn place(&self) -> String {
        match &self.0.database {
            Some(database) => format!("{}/{database}", self.0.address),
            None => self.0.address.clone(),
        }
    }

    /// Runs in the store's runtime, whichever executor waits for it; ends when nobody does.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = self.0.runtime.spawn(work);
        let _tied = Tied(task.abort_handle());
        task.await.map_err(|e| {
            let what = if e.is_panic() { "a task panicked" } else { "the Tokio runtime has ended" };
            Error::adapter(what).because(e)
        })?
    }

    /// Runs beside the caller, until the handle is dropped.
    pub(crate) fn beside(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Box<dyn Send + Sync> {
        Box::new(Tied(self.0.runtime.spawn(work).abort_handle()))
    }

    /// Asks the server whether it is there and takes the password.
    pub(crate) async fn ping(&self) -> Result<()> {
        let client = self.clone();
        self.run(async move { client.once(&Statement::new("RETURN 1")).await.map(drop) }).await
    }

    fn on(&self, error: Error) -> Error {
        error.on(self.place())
    }

    fn extra(&self) -> Vec<(String, Value)> {
        let database = self.0.database.iter();
        database.map(|name| ("db".to_owned(), name.as_str().into())).collect()
    }

    async fn connection(&self) -> Result<Connection> {
        loop {
            let kept = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match kept {
                Some((since, connection)) if since.elapsed() < FRESH => return Ok(connection),
                Some(_) => {}
                None => return Connection::open(&self.0.target).await.map_err(|e| self.on(e)),
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.is_idle() && idle.len() < KEPT {
            idle.push((Instant::now(), connection));
        }
    }

    /// After a failure: whether the connection, or others of its age, can still be used.
    async fn after(&self, error: &Error, mut connection: Connection) {
        if error.kind() == ErrorKind::Unreachable {
            self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        } else if connection.reset().await.is_ok() {
            self.keep(connection);
        }
    }

    /// Begins to read in a transaction of its own; within the runtime.
    pub(crate) async fn rows(&self, statement: &Statement) -> Result<Rows> {
        let mut connection = self.connection().await?;
        connection.run(&statement.text, &statement.parameters, self.extra());
        connection.pull(FETCH);
        match begun(&mut connection).await {
            Ok(columns) => Ok(Rows { client: self.clone(), connection: Some(connection), columns }),
            Err(error) => {
                self.after(&error, connection).await;
                Err(self.on(error))
            }
        }
    }

    async fn once(&self, statement: &Statement) -> Result<Vec<Row>> {
        let mut rows = self.rows(statement).await?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().await? {
            all.push(row);
        }
        Ok(all)
    }

    /// Runs a statement in a transaction of its own, and again where it failed in passing: so it
    /// has to be one that may run twice. For short answers; within the runtime.
    pub(crate) async fn ask(&self, statement: &Statement) -> Result<Vec<Row>> {
        self.again(Error::is_retryable, || self.once(statement)).await
    }

    /// Repeats what fails in passing where the server says so itself: then nothing was done.
    pub(crate) async fn again_if_refused<T, F: Future<Output = Result<T>>>(
        &self,
        call: impl FnMut() -> F,
    ) -> Result<T> {
        let refused = |error: &Error| error.kind() == ErrorKind::Busy && error.is_retryable();
        self.again(refused, call).await
    }

    /// Repeats what fails in passing and may be done twice.
    pub(crate) async fn again_if_passing<T, F: Future<Output = Result<T>>>(
        &self,
        call: impl FnMut() -> F,
    ) -> Result<T> {
        let passing = |error: &Error| error.kind() != ErrorKind::Changed && error.is_retryable();
        self.again(passing, call).await
    }

    /// Repeats what fails in passing, five times within the patience.
    async fn again<T, F: Future<Output = Result<T>>>(
        &self,
        passes: impl FnMut(&Error) -> bool,
        call: impl FnMut() -> F,
    ) -> Result<T> {
        let patience = self.0.patience;
        let policy = ExponentialBuilder::default()
            .with_min_delay(patience / 40)
            .with_max_delay(patience * 2 / 5)
            .with_max_times(if patience.is_zero() { 0 } else { 5 })
            .with_jitter();
        call.retry(policy).when(passes).await
    }

    /// Begins a transaction; within the runtime.
    pub(crate) async fn begin(&self) -> Result<Transaction> {
        let mut connection = self.connection().await?;
        connection.begin(self.extra());
        let begun = async {
            connection.send().await?;
            connection.success().await
        };
        match begun.await {
            Ok(_) => Ok(Transaction { client: self.clone(), connection }),
            Err(error) => {
                self.after(&error, connection).await;
                Err(self.on(error))
            }
        }
    }

    /// What the server calls its last committed transaction: equal as long as nothing was written.
    pub(crate) async fn last_transaction(&self) -> Result<String> {
        self.again(Error::is_retryable, || async {
            let mut transaction = self.begin().await?;
            transaction.ask(&Statement::new("RETURN 1")).await?;
            transaction.commit().await
        })
        .await
    }
}

/// Sends a statement and a pull; the columns of its answer.
async fn begun(connection: &mut Connection) -> Result<Arc<[String]>> {
    connection.send().await?;
    let told = connection.success().await?;
    let Some(Value::List(fields)) = told.member("fields") else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the server does not say what its rows have",
        ));
    };
    Ok(fields.iter().map(|field| field.as_text().unwrap_or_default().to_owned()).collect())
}

impl Statement {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into().into(), parameters: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// A parameter, back.
    pub(crate) fn into_parameter(mut self, name: &str) -> Option<Value> {
        let at = self.parameters.iter().position(|(known, _)| known == name)?;
        Some(self.parameters.swap_remove(at).1)
    }
}

impl Row {
    /// A column by its name.
    pub(crate) fn get(&self, column: &str) -> Result<&Value> {
        let at = self.columns.iter().position(|name| name == column);
        at.and_then(|at| self.values.get(at)).ok_or_else(|| odd(column))
    }

    pub(crate) fn text(&self, column: &str) -> Result<&str> {
        self.get(column)?.as_text().ok_or_else(|| odd(column))
    }

    pub(crate) fn integer(&self, column: &str) -> Result<i64> {
        self.get(column)?.as_integer().ok_or_else(|| odd(column))
    }

    /// A list of texts; none where it is null.
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<String>> {
        self.get(column)?.texts().ok_or_else(|| odd(column))
    }
}

fn odd(column: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "the server's answer is of an unknown form").on(column)
}

impl Rows {
    pub(crate) async fn next(&mut self) -> Result<Option<Row>> {
        let Some(row) = self.next_raw().await? else { return Ok(None) };
        let values = bolt::columns(&row).map_err(|e| self.client.on(e))?;
        Ok(Some(Row { columns: Arc::clone(&self.columns), values }))
    }

    /// The next row as the server sent it, for a [`Reader`](crate::bolt::Reader).
    pub(crate) async fn next_raw(&mut self) -> Result<Option<Bytes>> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        loop {
            let answer = match connection.row().await {
                Ok(Ok(row)) => return Ok(Some(row)),
                Ok(Err(told)) => told,
                Err(error) => {
                    if let Some(connection) = self.connection.take() {
                        self.client.after(&error, connection).await;
                    }
                    return Err(self.client.on(error));
                }
            };
            if answer.member("has_more") != Some(&Value::Bool(true)) {
                if let Some(connection) = self.connection.take() {
                    self.client.keep(connection);
                }
                return Ok(None);
            }
            connection.pull(FETCH);
            connection.send().await.map_err(|e| self.client.on(e))?;
        }
    }
}

impl Transaction {
    /// Runs a statement and throws its rows away; what the server says of it.
    pub(crate) async fn run(&mut self, statement: &Statement) -> Result<Value> {
        self.connection.run(&statement.text, &statement.parameters, Vec::new());
        self.connection.pull(-1);
        let ran = async {
            self.connection.send().await?;
            self.connection.success().await?;
            self.connection.success().await
        };
        ran.await.map_err(|e| self.client.on(e))
    }

    /// Runs a statement; for short answers.
    pub(crate) async fn ask(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        self.each(statement, |row| {
            all.push(row);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// Runs a statement and hands its rows on as they come. A failure of `take` is told at the end:
    /// until then the connection is of no other use.
    pub(crate) async fn each(
        &mut self,
        statement: &Statement,
        mut take: impl FnMut(Row) -> Result<()> + Send,
    ) -> Result<()> {
        self.connection.run(&statement.text, &statement.parameters, Vec::new());
        self.connection.pull(-1);
        let asked = async {
            let columns = begun(&mut self.connection).await?;
            let mut taken = Ok(());
            while let Ok(row) = self.connection.row().await? {
                if taken.is_ok() {
                    let values = bolt::columns(&row)?;
                    taken = take(Row { columns: Arc::clone(&columns), values });
                }
            }
            Ok(taken)
        };
        asked.await.map_err(|e: Error| self.client.on(e))?
    }

    /// Commits; what the server calls its last transaction now.
    pub(crate) async fn commit(mut self) -> Result<String> {
        self.connection.commit();
        let committed = async {
            self.connection.send().await?;
            self.connection.success().await
        };
        match committed.await {
            Ok(told) => {
                let bookmark = told.member("bookmark").and_then(Value::as_text).unwrap_or_default();
                let bookmark = bookmark.to_owned();
                self.client.keep(self.connection);
                Ok(bookmark)
            }
            Err(error) => {
                self.client.after(&error, self.connection).await;
                Err(self.client.on(error))
            }
        }
    }

    pub(crate) async fn rollback(mut self) -> Result<()> {
        self.connection.rollback();
        let back = async {
            self.connection.send().await?;
            self.connection.success().await
        };
        match back.await {
            Ok(_) => {
                self.client.keep(self.connection);
                Ok(())
            }
            Err(error) => {
                self.client.after(&error, self.connection).await;
                Err(self.client.on(error))
            }
        }
    }
}

/// Where the server is. What is wrong with an address is said without the address, which may
/// hold a password.
fn target(options: &Neo4jOptions) -> Result<Target> {
    let odd = |what: &str| {
        Error::new(ErrorKind::InvalidInput, what.to_owned())
            .advise("give an address such as bolt://localhost:7687")
    };
    let none = || odd("this is no address of a Neo4j server");
    let (scheme, rest) = options.url.split_once("://").ok_or_else(none)?;
    if rest.contains('@') {
        let what = "the address of a Neo4j server holds a user name or password";
        return Err(odd(what).advise("give the password with `password_env` or `password_file`"));
    }
    let tls = match scheme {
        "bolt" | "neo4j" => false,
        "bolt+s" | "neo4j+s" => true,
        "bolt+ssc" | "neo4j+ssc" => {
            return Err(odd("certificates that nobody vouches for are not accepted")
                .advise("add the certificate to those that the system trusts, and use bolt+s://"));
        }
        _ => return Err(none()),
    };
    // An address of IPv6 stands in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| none())?),
        _ => (rest, 7687),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(['/', '?', '#']) {
        return Err(none());
    }
    Ok(Target {
        host: host.to_owned(),
        port,
        tls,
        user: options.user.clone(),
        password: options.password.clone(),
        patience: options.timeout,
    })
}

#[cfg(test)]
mod tests {
    use neo4j_testserver::shared;

    use super::*;
    use crate::{options::Neo4jStore, value::Moment};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
    }

    // The server stores what it was sent: what it sends back is the same, bit by bit.
    #[test]
    fn every_type_goes_to_the_server_and_comes_back() {
        let Some(server) = shared() else { return };
        let moment = Moment { seconds: -62_135_596_800, nanos: 999_999_999 };
        let values = [
            Value::Bytes(vec![0, 255].into()),
            Value::Bytes(bytes::Bytes::new()),
            Value::Integer(i64::MIN),
            Value::Float(f64::NEG_INFINITY),
            Value::Text("x".repeat(200_000)),
            Value::Date(-365_243_219_162),
            Value::Time(86_399_999_999_999, -64_800),
            Value::LocalTime(0),
            Value::LocalDateTime(moment),
            Value::OffsetDateTime(moment, 18_001),
            Value::ZonedDateTime(
                Moment { seconds: 1_445_733_000, nanos: 1 },
                "Europe/London".into(),
            ),
            Value::ZonedDateTime(
                Moment { seconds: 1_445_736_600, nanos: 1 },
                "Europe/London".into(),
            ),
            Value::Duration([-14, 3, -5, 999_999_999]),
            Value::Point(7203, [1.5, -0.0]),
            Value::Point(4326, [12.994, 55.6]),
            Value::Point3D(9157, [1.0, 2.0, 1e300]),
            Value::Point3D(4979, [1.0, 2.0, 3.0]),
            Value::List(vec![Value::Date(0), Value::Date(1)]),
            Value::List(Vec::new()),
        ];
        runtime().block_on(async {
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let mut transaction = client.begin().await.unwrap();
            for (at, value) in values.iter().enumerate() {
                let made = Statement::new("CREATE (:V {at: $at, v: $v})")
                    .with("at", at as i64)
                    .with("v", value.clone());
                transaction.run(&made).await.unwrap();
            }
            transaction.commit().await.unwrap();
            let read = Statement::new("MATCH (n:V) RETURN n.v AS v ORDER BY n.at");
            let rows = client.ask(&read).await.unwrap();
            for (row, value) in rows.iter().zip(&values) {
                assert_eq!(row.get("v").unwrap(), value);
            }
            assert_eq!(rows.len(), values.len());
        });
    }

    // Two take the same locks in opposite orders, and wait for each other: the server refuses one.
    #[test]
    fn of_two_transactions_in_a_deadlock_the_one_that_is_refused_comes_again() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            let made = "CREATE (:D {i: 0, n: 0}), (:D {i: 1, n: 0})";
            client.ask(&Statement::new(made)).await.unwrap();
            let both = tokio::sync::Barrier::new(2);
            let (tries, refused) = (Mutex::new([0, 0]), Mutex::new(Vec::new()));
            let write = |at: i64| {
                let (client, both, tries, refused) = (&client, &both, &tries, &refused);
                async move {
                    let mut transaction = client.begin().await?;
                    let add = "MATCH (n:D {i: $i}) SET n.n = n.n + 1";
                    transaction.run(&Statement::new(add).with("i", at)).await?;
                    let first = {
                        let mut tries = tries.lock().unwrap();
                        tries[at as usize] += 1;
                        tries[at as usize] == 1
                    };
                    if first {
                        both.wait().await;
                    }
                    let second = Statement::new(add).with("i", 1 - at);
                    match transaction.run(&second).await {
                        Ok(_) => transaction.commit().await.map(drop),
                        Err(error) => {
                            refused.lock().unwrap().push(error.report());
                            let _ = transaction.rollback().await;
                            Err(error)
                        }
                    }
                }
            };
            let (a, b) = futures::join!(
                client.again_if_refused(|| write(0)),
                client.again_if_refused(|| write(1))
            );
            a.unwrap();
            b.unwrap();
            let refused = refused.into_inner().unwrap();
            assert!(refused.iter().any(|told| told.contains("DeadlockDetected")), "{refused:?}");
            assert!(tries.into_inner().unwrap().iter().sum::<i32>() > 2);
            let rows = client.ask(&Statement::new("MATCH (n:D) RETURN n.n AS n")).await.unwrap();
            let counts: Vec<_> = rows.iter().map(|row| row.integer("n").unwrap()).collect();
            assert_eq!(counts, [2, 2]);
        });
    }

    #[test]
    fn what_was_rolled_back_or_refused_leaves_a_connection_that_works() {
        let Some(server) = shared() else { return };
        runtime().block_on(async {
            let client = Client::new(&Neo4jStore::options(&server.bolt_url())).unwrap();
            // The name of a label stays, once it was used: a transaction of the server's own.
            client.ask(&Statement::new("CREATE (n:Gone) DELETE n")).await.unwrap();
            let before = client.last_transaction().await.unwrap();
            let mut transaction = client.begin().await.unwrap();
            transaction.run(&Statement::new("CREATE (:Gone)")).await.unwrap();
            transaction.rollback().await.unwrap();
            let error = client.ask(&Statement::new("RETURN nonsense")).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.report());
            let late = Statement::new("UNWIND range(3000, 0, -1) AS n RETURN 1 / n AS x");
            assert!(client.ask(&late).await.is_err());
            // Of a long answer only the beginning is wanted.
            let long = Statement::new("UNWIND range(1, 100000) AS n RETURN n");
            let mut rows = client.rows(&long).await.unwrap();
            assert_eq!(rows.next().await.unwrap().unwrap().integer("n").unwrap(), 1);
            drop(rows);
            let all = client.ask(&Statement::new("MATCH (n:Gone) RETURN n")).await.unwrap();
            assert!(all.is_empty());
            assert_eq!(client.last_transaction().await.unwrap(), before);
        });
    }
}
