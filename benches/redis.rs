//! Redis: export and import against a bare loop of the same client, and against `redis-cli`.
//!
//! `cargo bench -p backup-redis [-- COUNT]` (default 1 000 000 keys of every type) starts a
//! `redis-server` of its own. Every client is a process of its own.
#![allow(clippy::print_stdout, missing_docs)]

mod common;
#[path = "common/steps.rs"]
mod steps;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use backup_redis::{Consistency, RedisStore};
use common::{Result, Row, folder, head, least, number, ours, row, shell, worker};
use redis::{Pipeline, Value, aio::MultiplexedConnection};

/// How often each is run; the least time counts.
const RUNS: usize = 3;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if worker(|args| runtime.block_on(step(args)))? {
        return Ok(());
    }
    let count = number().unwrap_or(1_000_000);
    let folder = folder("bench-redis")?;
    let server = Server::start(&folder)?;
    let (port, place) = (server.port.to_string(), folder.to_str().unwrap_or_default());
    let run = |step: &str, option: &str| ours(RUNS, &[step, option, &port, place]);
    let shown = |name: &str, (seconds, peak): (f64, f64), against, file: Option<&str>| {
        let bytes = file.and_then(|file| Some(fs::metadata(folder.join(file)).ok()?.len()));
        let peak = Some(peak).filter(|peak| peak.is_finite());
        row(name, &Row { seconds, bytes, against, peak });
    };
    let cli = |command: &str| shell(&format!("redis-cli -p {port} {command} >{place}/said 2>&1"));

    write_commands(&folder.join("mixed"), |out| mixed(out, count))?;
    println!("{count} keys of every type\n");
    head();
    let mut pipe = f64::MAX;
    for _ in 0..RUNS {
        cli("flushall")?;
        pipe = pipe.min(least(1, || cli(&format!("--pipe <{place}/mixed")))?);
    }
    shown("redis-cli --pipe", (pipe, f64::NAN), None, Some("mixed"));
    let mut best = f64::MAX;
    for page in ["128", "512", "2048"] {
        let figures = run("loop", page)?;
        shown(&format!("bare loop, {page} keys a page"), figures, None, None);
        best = best.min(figures.0);
    }
    let rdb = least(RUNS, || cli(&format!("--rdb {place}/rdb")))?;
    shown("redis-cli --rdb", (rdb, f64::NAN), None, Some("rdb"));
    for codec in ["gzip", "zstd"] {
        shown(&format!("export, {codec}"), run("export", codec)?, Some(best), Some(codec));
    }
    shown("export of a snapshot, zstd", run("snapshot", "zstd")?, Some(best), None);
    shown("validate, gzip", run("validate", "gzip")?, None, None);
    for codec in ["gzip", "zstd"] {
        let mut figures = (f64::MAX, 0_f64);
        for _ in 0..RUNS {
            cli("flushall")?;
            let (seconds, peak) = ours(1, &["import", codec, &port, place])?;
            figures = (figures.0.min(seconds), figures.1.max(peak));
        }
        shown(&format!("import, until all is staged, {codec}"), figures, Some(pipe), None);
    }
    cli("flushall")?;
    cli(&format!("--pipe <{place}/mixed"))?;
    shown("restore in place: staged, read back twice", run("restore", "gzip")?, None, None);

    println!("\none hash of {count} fields\n");
    head();
    write_commands(&folder.join("hash"), |out| hash(out, count))?;
    cli("flushall")?;
    cli(&format!("--pipe <{place}/hash"))?;
    shown("export, gzip", run("export", "hash")?, None, Some("hash"));
    shown("restore in place", run("restore", "hash")?, None, None);
    drop(server);
    fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn step(args: &[String]) -> Result<()> {
    let [step, option, port, place] = args else {
        return Err("step, option, port, folder".into());
    };
    let url = format!("redis://127.0.0.1:{port}");
    let archive = Path::new(place).join(option);
    let consistency = match step.as_str() {
        "snapshot" => Consistency::Snapshot(Duration::from_secs(60)),
        _ => Consistency::Fuzzy,
    };
    if step == "loop" {
        return bare_loop(&url, option.parse()?).await;
    }
    let store = RedisStore::options(&url).consistency(consistency).open()?;
    let step = if step == "snapshot" { "export" } else { step };
    steps::step(step, store, &archive).await
}

/// Reads every key as a careful application would, and throws it away.
async fn bare_loop(url: &str, page: usize) -> Result<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let expected: usize = redis::cmd("DBSIZE").query_async(&mut connection).await?;
    let (mut cursor, mut seen) = (0, 0);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(page);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        seen += keys.len();
        read_page(&mut connection, &keys).await?;
        cursor = next;
        if cursor == 0 {
            assert_eq!(seen, expected);
            return Ok(());
        }
    }
}

async fn read_page(connection: &mut MultiplexedConnection, keys: &[Vec<u8>]) -> Result<()> {
    let mut ask = Pipeline::with_capacity(2 * keys.len());
    for key in keys {
        ask.cmd("TYPE").arg(key);
        ask.cmd("PEXPIRETIME").arg(key);
    }
    let types: Vec<(String, i64)> = ask.query_async(connection).await?;
    let mut read = Pipeline::with_capacity(keys.len());
    for (key, (type_name, _)) in keys.iter().zip(&types) {
        match type_name.as_str() {
            "string" => read.cmd("GET").arg(key),
            "hash" => read.cmd("HGETALL").arg(key),
            "list" => read.cmd("LRANGE").arg(key).arg(0).arg(-1),
            "set" => read.cmd("SMEMBERS").arg(key),
            "zset" => read.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
            _ => {
                read.cmd("XINFO").arg("STREAM").arg(key).arg("FULL").arg("COUNT").arg(1);
                read.cmd("XRANGE").arg(key).arg("-").arg("+")
            }
        };
    }
    let values: Vec<Value> = read.query_async(connection).await?;
    assert!(values.len() >= keys.len());
    Ok(())
}

/// As `redis-cli --pipe` takes them.
fn write_commands(path: &Path, make: impl Fn(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    make(&mut out)?;
    out.flush()?;
    Ok(())
}

/// Keys as applications have them: JSON, pages with a deadline, users, queues, tags, rankings, events.
fn mixed(out: &mut dyn Write, count: u64) -> Result<()> {
    let mut noise = Noise(1);
    for n in 0..count {
        let kind = n % 100;
        let name = ["doc", "page", "user", "queue", "tags", "rank", "events"];
        let of = |at: usize| format!("{}:{n}", name[at]);
        let mut cmd = redis::Cmd::new();
        match kind {
            0..40 => {
                let (title, text) = (noise.words(4), noise.words(20));
                let json =
                    format!(r#"{{"id":{n},"score":0.{kind},"text":"{text}","title":"{title}"}}"#);
                cmd.arg("SET").arg(of(0)).arg(json);
            }
            40..60 => {
                let at = 4_102_444_800_000 + n;
                cmd.arg("SET").arg(of(1)).arg(noise.words(25)).arg("PXAT").arg(at);
            }
            60..75 => {
                cmd.arg("HSET").arg(of(2));
                for field in ["name", "mail", "city", "plan", "seen", "note"] {
                    cmd.arg(field).arg(noise.words(2));
                }
            }
            75..82 => items(cmd.arg("RPUSH").arg(of(3)), &mut noise),
            82..90 => items(cmd.arg("SADD").arg(of(4)), &mut noise),
            90..98 => {
                cmd.arg("ZADD").arg(of(5));
                for place in 0..8 {
                    cmd.arg(noise.next() as f64 / 1e12).arg(format!("member {place}"));
                }
            }
            98 => {
                for id in 1..4 {
                    let mut add = redis::cmd("XADD");
                    add.arg(of(6)).arg(format!("{id}-0")).arg("event").arg(noise.words(3));
                    out.write_all(&add.get_packed_command())?;
                }
                cmd.arg("XGROUP").arg("CREATE").arg(of(6)).arg("workers").arg("2-0");
            }
            _ => {
                let bytes: Vec<u8> = (0..250).flat_map(|_| noise.next().to_le_bytes()).collect();
                cmd.arg("SET").arg(of(1)).arg(bytes);
            }
        }
        out.write_all(&cmd.get_packed_command())?;
    }
    Ok(())
}

fn items(cmd: &mut redis::Cmd, noise: &mut Noise) {
    for _ in 0..8 {
        cmd.arg(format!("{} {}", noise.words(1), noise.next()));
    }
}

fn hash(out: &mut dyn Write, count: u64) -> Result<()> {
    let mut noise = Noise(2);
    for n in 0..count {
        let mut cmd = redis::cmd("HSET");
        cmd.arg("hash").arg(format!("field:{n}")).arg(noise.words(10));
        out.write_all(&cmd.get_packed_command())?;
    }
    Ok(())
}

/// The same numbers each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn words(&mut self, count: usize) -> String {
        const WORDS: [&str; 16] = [
            "memory", "model", "of", "a", "vector", "graph", "the", "note", "answers", "where",
            "table", "and", "question", "is", "paper", "kept",
        ];
        let words: Vec<&str> = (0..count).map(|_| WORDS[(self.next() >> 60) as usize]).collect();
        words.join(" ")
    }
}

/// A server that ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--repl-diskless-sync-delay", "0"]);
        let child = command.current_dir(folder).stdout(Stdio::null()).spawn()?;
        let server = Self { child, port };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err("redis-server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
