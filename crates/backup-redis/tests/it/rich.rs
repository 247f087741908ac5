//! Every type, every kind of deadline, keys of any bytes.

use std::time::Duration;

use backup_core::{Catalog, NoticeKind, Outcome, Stores, manifest::StoreNotice};
use backup_redis::{Consistency, Expiry, RedisStore};

use crate::{
    cluster::Cluster,
    server::{Raw, Server, available, content, has, leftovers, now_ms},
    writer::Writer,
};

/// A number of fields that takes several pages.
const MANY: usize = 2000;

/// Runs commands wherever their keys are.
struct Fill<'a>(&'a mut [Raw]);

impl Fill<'_> {
    fn run(&mut self, command: &[&[u8]]) -> redis::Value {
        for raw in self.0.iter_mut() {
            match raw.try_run(command) {
                Err(error) if error.code() == Some("MOVED") => {}
                done => return done.unwrap_or_else(|e| panic!("{command:?}: {e}")),
            }
        }
        panic!("no server took {command:?}");
    }

    fn words(&mut self, command: &str) -> redis::Value {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.run(&words)
    }
}

pub(crate) fn fill(raws: &mut [Raw]) {
    let mut to = Fill(raws);
    to.words("SET text:plain hello");
    to.words("SET text:number 42");
    to.run(&[b"SET", b"text:empty", b""]);
    to.run(&[b"SET", b"text:bytes", &(0..=255).collect::<Vec<u8>>()]);
    to.run(&[b"SET", b"\xff\xfe\0{x}:1", b"binary key"]);
    to.run(&[b"SET", b"", b"the key is empty"]);
    to.run(&[b"SET", b"a}b{c", b"braces"]);
    to.run(&[b"SET", b"json:canonical", br#"{"a":1,"b":[true,null]}"#]);
    to.run(&[b"SET", b"json:spaced", b"{ \"b\": 1.10, \"a\": 18446744073709551615 }"]);
    to.run(&[b"SET", b"json:tagged", br#"{"$type":"Base64","_value":"no"}"#]);
    to.run(&[b"SET", b"json:twice", br#"{"a":1,"a":2}"#]);
    let long: Vec<u8> = (0..100_000_u32).map(|i| (i % 253) as u8).collect();
    to.run(&[b"SET", b"long:page", &long]);
    to.run(&[b"SETRANGE", b"long:ranges", b"9000000", b"the end"]);
    to.run(&[b"SETBIT", b"bits", b"77", b"1"]);
    to.words("PFADD hyper a b c d");
    to.run(&[b"HSET", b"hash:small", b"f", b"v", b"\xff", b"\xfe", b"", b"empty"]);
    to.run(&[b"RPUSH", b"list:small", b"a", b"", b"a", b"\xff"]);
    to.words("SADD set:ints 1 2 3 -9");
    to.run(&[b"SADD", b"set:small", b"x", b"", b"\xff"]);
    to.words("ZADD zset:small inf top -inf bottom 0.1 tenth -0 zero 1.7976931348623157e308 big 9007199254740993 int");
    for number in 0..MANY {
        let (name, value) = (format!("n{number}"), format!("value {number} {}", "x".repeat(80)));
        let (name, value) = (name.as_bytes(), value.as_bytes());
        to.run(&[b"HSET", b"hash:large", name, value]);
        to.run(&[b"RPUSH", b"list:large", value]);
        to.run(&[b"SADD", b"set:large", value]);
        let score = format!("{}", number as f64 / 3.0);
        to.run(&[b"ZADD", b"zset:large", score.as_bytes(), value]);
        let id = format!("{}-{number}", 5 + number / 10);
        to.run(&[b"XADD", b"stream:large", id.as_bytes(), b"f", value, b"f", b"again"]);
    }
    for command in [
        "XADD stream:groups 1-1 a 1",
        "XADD stream:groups 2-1 a 2",
        "XADD stream:groups 3-1 a 3",
        "XADD stream:groups 4-1 a 4",
        "XGROUP CREATE stream:groups workers 0",
        "XGROUP CREATE stream:groups idle 3-1",
        "XGROUP CREATECONSUMER stream:groups workers lazy",
        "XREADGROUP GROUP workers anna COUNT 2 STREAMS stream:groups >",
        "XREADGROUP GROUP workers bert COUNT 1 STREAMS stream:groups >",
        "XACK stream:groups workers 1-1",
        "XDEL stream:groups 2-1",
        "XDEL stream:groups 4-1",
        "XADD stream:emptied 7-7 a 1",
        "XDEL stream:emptied 7-7",
        "XGROUP CREATE stream:made g $ MKSTREAM",
        "SET ttl:far far",
        "PEXPIREAT ttl:far 4102444800123",
        "HSET ttl:hash a 1",
        "PEXPIREAT ttl:hash 4102444800456",
        "SET ttl:near near",
        "PEXPIRE ttl:near 7200000",
        "RPUSH ttl:list a",
        "PEXPIRE ttl:list 7200001",
    ] {
        to.words(command);
    }
    // What newer servers have.
    if has(&mut to.0[0], "HPEXPIREAT") {
        for command in [
            "HSET fields:small a 1 b 2 c 3",
            "HPEXPIREAT fields:small 4102444800123 FIELDS 1 a",
            "HPEXPIRE fields:small 7200000 FIELDS 1 c",
            "HPEXPIREAT hash:large 4102444800456 FIELDS 3 n1 n2 n1999",
        ] {
            to.words(command);
        }
    }
    if has(&mut to.0[0], "JSON.SET") {
        to.run(&[
            b"JSON.SET",
            b"doc:object",
            b"$",
            br#"{"b":[1.10,1e300,-0.0],"a":{"x":18446744073709551615}}"#,
        ]);
        to.run(&[b"JSON.SET", b"doc:text", b"$", "\"\u{e9}\\u0001\"".as_bytes()]);
        let long = format!("[{}1]", "1234567,".repeat(4000));
        to.run(&[b"JSON.SET", b"doc:long", b"$", long.as_bytes()]);
        to.words("PEXPIREAT doc:text 4102444800789");
    }
}

/// All that an application can ask, without what changes by itself.
fn seen(raws: &mut [Raw]) -> Vec<String> {
    let mut all: Vec<String> = raws.iter_mut().flat_map(content).collect();
    let mut to = Fill(raws);
    for name in ["stream:groups", "stream:emptied", "stream:made", "stream:large"] {
        let groups = to.words(&format!("XINFO GROUPS {name}"));
        let stream = format!("{:?}", to.words(&format!("XINFO STREAM {name}")));
        // How the server keeps it is its own affair.
        let ids = ["last-generated-id", "max-deleted-entry-id", "entries-added", "length"];
        let ids: Vec<_> = ids.map(|id| stream.split(id).nth(1).map(|s| s[..60].to_owned())).into();
        all.push(format!("{name} {groups:?} {ids:?}"));
    }
    if has(&mut to.0[0], "HPEXPIREAT") {
        for key in ["fields:small a b c", "hash:large n1 n2 n3 n1999"] {
            let (key, fields) = key.split_once(' ').unwrap();
            let count = fields.split(' ').count();
            let at = to.words(&format!("HPEXPIRETIME {key} FIELDS {count} {fields}"));
            all.push(format!("{key} {at:?}"));
        }
    }
    if has(&mut to.0[0], "JSON.SET") {
        for key in ["doc:object", "doc:text", "doc:long"] {
            all.push(format!("{key} {:?}", to.words(&format!("JSON.GET {key}"))));
        }
    }
    let full = format!("{:?}", to.words("XINFO STREAM stream:groups FULL"));
    let pending: Vec<&str> = full.split("pending").skip(1).collect();
    all.push(pending.iter().map(|p| p.split("seen-time").next().unwrap()).collect());
    all.sort();
    all
}

async fn there_and_back(from: RedisStore, to: RedisStore) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let backup = Stores::new("rich", "1.0.0").with("redis", from).backup(&catalog).await.unwrap();
    assert!(backup.outcome.is_complete(), "{backup:?}");
    let stores = Stores::new("rich", "1.0.0").with("redis", to);
    let plan = stores.plan_restore(&catalog.latest().unwrap()).await.unwrap();
    plan.execute().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back_equal_on_one_server() {
    if !available() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    fill(&mut [from.raw()]);
    to.raw().run("SET old content");
    for end in ["", "/?protocol=resp3"] {
        let open = |server: &Server| RedisStore::options(&format!("{}{end}", server.url()));
        let from_store = open(&from).every_prefix().connect().await.unwrap();
        let to_store = open(&to).every_prefix().connect().await.unwrap();
        there_and_back(from_store, to_store).await;
        assert_eq!(seen(&mut [to.raw()]), seen(&mut [from.raw()]));
        let digest = |server: &Server| server.raw().text("DEBUG DIGEST");
        assert_eq!(digest(&to), digest(&from));
        assert_eq!(leftovers(&mut to.raw()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back_equal_in_a_cluster_and_from_it() {
    if !available() {
        return;
    }
    let (one, three, again) = (Server::start(&[]), Cluster::start(), Server::start(&[]));
    fill(&mut [one.raw()]);
    Fill(&mut three.raws()).words("SET old content");
    let open = async |url: String| RedisStore::connect(&url).await.unwrap();
    there_and_back(open(one.url()).await, open(three.url()).await).await;
    assert_eq!(seen(&mut three.raws()), seen(&mut [one.raw()]));
    there_and_back(open(three.url()).await, open(again.url()).await).await;
    assert_eq!(seen(&mut [again.raw()]), seen(&mut [one.raw()]));
    let left: Vec<String> = three.raws().iter_mut().flat_map(leftovers).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_databases_are_swapped_together() {
    if !available() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    for (db, key) in [(0, "a"), (3, "b"), (5, "not of the store")] {
        from.raw().run(&format!("SELECT {db}"));
        let mut raw = Raw::to(&format!("{}/{db}", from.url()));
        raw.bytes(&[b"SET", key.as_bytes(), b"value"]);
    }
    Raw::to(&format!("{}/5", to.url())).run("SET stays here");
    Raw::to(&format!("{}/3", to.url())).run("SET goes away");
    let open = async |server: &Server| {
        RedisStore::options(&server.url()).databases([0, 3]).connect().await.unwrap()
    };
    there_and_back(open(&from).await, open(&to).await).await;
    for (db, keys) in [(0, vec!["a"]), (3, vec!["b"]), (5, vec!["stays"])] {
        let found = Raw::to(&format!("{}/{db}", to.url())).strings(&[b"KEYS", b"*"]);
        assert_eq!(found, keys.iter().map(|k| k.as_bytes().to_vec()).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_some_keys_leaves_the_others_alone() {
    if !available() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    for command in ["SET a:1 new", "SET a:2 new", "SET b:1 elsewhere"] {
        from.raw().run(command);
    }
    for command in ["SET a:1 old", "SET a:9 old", "SET b:1 mine"] {
        to.raw().run(command);
    }
    let open = async |server: &Server| {
        RedisStore::options(&server.url()).keys(["a:*"]).connect().await.unwrap()
    };
    there_and_back(open(&from).await, open(&to).await).await;
    let mut raw = to.raw();
    let mut keys = raw.strings(&[b"KEYS", b"*"]);
    keys.sort();
    assert_eq!(keys, [b"a:1".to_vec(), b"a:2".to_vec(), b"b:1".to_vec()]);
    assert_eq!(raw.text("GET a:1"), "new");
    assert_eq!(raw.text("GET b:1"), "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_meanwhile_is_gone_and_remaining_time_can_be_given_again() {
    if !available() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    from.raw().run("SET short s PX 1500");
    from.raw().run("SET long l PX 100000");
    let fields = has(&mut from.raw(), "HPEXPIRE");
    if fields {
        from.raw().run("HSET fields short s long l stays x");
        from.raw().run("HPEXPIRE fields 1500 FIELDS 1 short");
        from.raw().run("HPEXPIRE fields 100000 FIELDS 1 long");
    }
    let names = |server: &Server| {
        let mut names = server.raw().strings(&[b"KEYS", b"*"]);
        names.sort();
        names
    };
    let field = |server: &Server, name: &str| -> i64 {
        let at = server.raw().run(&format!("HPEXPIRETIME fields FIELDS 1 {name}"));
        redis::from_redis_value::<Vec<i64>>(at).unwrap()[0]
    };
    let taken_at_ms = now_ms();
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let store = RedisStore::connect(&from.url()).await.unwrap();
    Stores::new("ttl", "1.0.0").with("redis", store).backup(&catalog).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let latest = catalog.latest().unwrap();
    let store = RedisStore::connect(&to.url()).await.unwrap();
    let stores = Stores::new("ttl", "1.0.0").with("redis", store);
    stores.plan_restore(&latest).await.unwrap().execute().await.unwrap();
    let mut wanted = vec![b"long".to_vec()];
    if fields {
        wanted.insert(0, b"fields".to_vec());
        assert_eq!(field(&to, "short"), -2);
        assert_eq!((field(&to, "long"), field(&to, "stays")), (field(&from, "long"), -1));
    }
    assert_eq!(names(&to), wanted);
    let deadline = |server: &Server| -> i64 {
        redis::from_redis_value(server.raw().run("PEXPIRETIME long")).unwrap()
    };
    assert_eq!(deadline(&from), deadline(&to));
    let store = RedisStore::options(&to.url()).expiry(Expiry::Remaining { taken_at_ms });
    let stores = Stores::new("ttl", "1.0.0").with("redis", store.connect().await.unwrap());
    stores.plan_restore(&latest).await.unwrap().execute().await.unwrap();
    assert!(deadline(&to) >= deadline(&from) + 1600);
    assert_eq!(to.raw().text("GET short"), "s");
    if fields {
        assert!(field(&to, "long") >= field(&from, "long") + 1600);
        assert_eq!(to.raw().text("HGET fields short"), "s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_at_full_speed_never_splits_a_pair() {
    if !available() {
        return;
    }
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let mut filler = from.raw();
    for number in 0..3000 {
        filler.run(&format!("SET filler:{number} {number}"));
    }
    let most = Duration::from_secs(60);
    for consistency in [Consistency::Fuzzy, Consistency::Paused(most), Consistency::Snapshot(most)]
    {
        let mut raw = from.raw();
        let writer = Writer::start(101, move |number| {
            let number = number.to_string();
            let pair =
                [b"MSET".as_slice(), b"left", number.as_bytes(), b"right", number.as_bytes()];
            raw.bytes(&pair);
        });
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap();
        let store = RedisStore::options(&from.url()).consistency(consistency);
        let stores = Stores::new("pair", "1.0.0").with("redis", store.connect().await.unwrap());
        stores.backup(&catalog).await.unwrap();
        assert!(writer.stop() > 100, "the writer did not write");
        let store = RedisStore::connect(&to.url()).await.unwrap();
        let stores = Stores::new("pair", "1.0.0").with("redis", store);
        let plan = stores.plan_restore(&catalog.latest().unwrap()).await.unwrap();
        plan.execute().await.unwrap();
        if consistency != Consistency::Fuzzy {
            assert_eq!(to.raw().text("GET left"), to.raw().text("GET right"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_key_that_changes_while_it_is_read_is_named() {
    if !available() {
        return;
    }
    let from = Server::start(&[]);
    let mut raw = from.raw();
    for number in 0..200 {
        let mut command = vec![b"HSET".to_vec(), b"large".to_vec()];
        command.extend(
            (0..500).flat_map(|i| [format!("f{number}-{i}").into_bytes(), vec![b'x'; 100]]),
        );
        raw.bytes(&command.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    let writer = Writer::start(1, move |_| {
        raw.run("HINCRBY large counter 1");
    });
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    let store = RedisStore::connect(&from.url()).await.unwrap();
    let backup = Stores::new("torn", "1.0.0").with("redis", store).backup(&catalog).await.unwrap();
    writer.stop();
    let Outcome::Partial(notices) = backup.outcome else { panic!("{backup:?}") };
    let named =
        |n: &StoreNotice| n.notice.kind == NoticeKind::Changed && n.notice.subject == "large";
    assert!(notices.iter().any(named), "{notices:?}");
}
