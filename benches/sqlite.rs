//! Backup, validation and restore of a large SQLite database, against the tools that a user
//! would take instead, in one run.
//!
//! `cargo bench --bench sqlite --features sqlite-bundled,zstd [-- MB]` (default 1000) needs
//! `sqlite3`, `pigz`, `sha256sum`, and `restic` where it is to be compared. Every figure is
//! the least of three runs; each of ours is a process of its own, whose peak memory is shown.
//!
//! `… -- memory` shows peak memory at 100 MB and at 4 GB instead; `… -- merge` a merge of 100 000
//! records into 100 000, half of them in conflict, beside a plain restore of the same archive.
#![allow(clippy::print_stdout, missing_docs)]

mod common;

use std::{env, fs, path::Path};

use backup_kit::{
    BackupOptions, Cancel, Conflict, RestoreOptions, Stores,
    archive::{Archive, Codec, VerifyMode, WriterOptions},
    sqlite::{SqliteStore, rusqlite},
};
use common::{Result, Row, folder, has, head, least, number, ours, row, shell, worker};

const RUNS: usize = 3;

fn main() -> Result<()> {
    if worker(step)? {
        return Ok(());
    }
    if env::args().any(|arg| arg == "memory") {
        return memory();
    }
    if env::args().any(|arg| arg == "merge") {
        return merge();
    }
    let folder = folder("bench-sqlite")?;
    let database = folder.join("state.db");
    fill(&database, number().unwrap_or(1000) * 1_000_000)?;
    println!("database: {:.0} MB\n", fs::metadata(&database)?.len() as f64 / 1e6);
    head();

    let (copy, packed) = (folder.join("copy.db"), folder.join("copy.db.gz"));
    let two_steps = least(RUNS, || {
        shell(&format!(
            "rm -f {c} {p}; sqlite3 {d} '.backup {c}'; pigz -6 -k {c}; sync {p}",
            c = copy.display(),
            p = packed.display(),
            d = database.display()
        ))
    })?;
    let pigz_size = fs::metadata(&packed)?.len();
    let tool = |seconds, bytes| Row { seconds, bytes, against: None, peak: None };
    row("sqlite3 .backup, pigz -6", &tool(two_steps, Some(pigz_size)));
    let hashed =
        least(RUNS, || shell(&format!("pigz -dc {} | sha256sum > /dev/null", packed.display())))?;
    let restic = has("restic")
        .then(|| {
            let repo = folder.join("restic");
            least(RUNS, || {
                shell(&format!(
                    "rm -rf {r}; export RESTIC_PASSWORD=x; restic -q init -r {r} >/dev/null; restic -q backup --no-cache -r {r} {c}",
                    r = repo.display(),
                    c = copy.display()
                ))
            })
        })
        .transpose()?;
    if let Some(restic) = restic {
        row("restic backup of the copy (init included)", &tool(restic, None));
    }
    for (name, step, against) in [
        ("backup-kit create", "create", Some(two_steps)),
        ("backup-kit create, zstd", "create-zstd", restic),
    ] {
        let archive = folder.join(format!("{step}.archive"));
        let (seconds, peak) = run(RUNS, step, &database, &archive)?;
        let bytes = Some(fs::metadata(&archive)?.len());
        row(name, &Row { seconds, bytes, against, peak: Some(peak) });
    }
    let archive = folder.join("create.archive");
    println!("size against pigz: {:.3}\n", fs::metadata(&archive)?.len() as f64 / pigz_size as f64);
    row("pigz -dc | sha256sum", &tool(hashed, None));
    let one = |name, step, against| -> Result<()> {
        let (seconds, peak) = run(RUNS, step, &database, &archive)?;
        row(name, &Row { seconds, bytes: None, against, peak: Some(peak) });
        Ok(())
    };
    one("backup-kit validate", "validate", Some(hashed))?;
    let listed = least(RUNS, || shell(&format!("tar tzf {} > /dev/null", archive.display())))?;
    row("tar tzf", &tool(listed, None));
    one("backup-kit info", "info", Some(listed))?;
    one("backup-kit restore", "restore", None)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

// Peak memory must not grow with the database.
fn memory() -> Result<()> {
    head();
    for megabytes in [100, 4000] {
        let folder = folder("bench-memory")?;
        let (database, archive) = (folder.join("state.db"), folder.join("a.tar.gz"));
        fill(&database, megabytes * 1_000_000)?;
        for step in ["create", "validate", "restore"] {
            let (seconds, peak) = run(1, step, &database, &archive)?;
            let bytes = Some(fs::metadata(&database)?.len());
            row(step, &Row { seconds, bytes, against: None, peak: Some(peak) });
        }
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

// The records of an archive added to those of a database, and put in their place.
fn merge() -> Result<()> {
    const RECORDS: u64 = 100_000;
    let folder = folder("bench-merge")?;
    let (from, into) = (folder.join("from.db"), folder.join("into.db"));
    passages(&from, 0..RECORDS, "archived")?;
    passages(&into, RECORDS / 2..RECORDS + RECORDS / 2, "live")?;
    let archive = folder.join("a.tar.gz");
    head();
    let database = folder.join("live.db");
    let figures = run(1, "create-records", &from, &archive)?;
    let bytes = Some(fs::metadata(&archive)?.len());
    row(
        "create, records",
        &Row { seconds: figures.0, bytes, against: None, peak: Some(figures.1) },
    );
    let mut against = None;
    for step in ["restore-records", "merge"] {
        let mut best: Option<(f64, f64)> = None;
        for _ in 0..RUNS {
            fs::copy(&into, &database)?;
            let figures = run(1, step, &database, &archive)?;
            best = best.filter(|best| best.0 <= figures.0).or(Some(figures));
        }
        let Some((seconds, peak)) = best else { continue };
        let rate = RECORDS as f64 / seconds;
        row(
            &format!("{step}, {rate:.0} records/s"),
            &Row { seconds, bytes: None, against, peak: Some(peak) },
        );
        against = Some(seconds);
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

// Rows of 800 bytes.
fn passages(path: &Path, keys: std::ops::Range<u64>, word: &str) -> Result<()> {
    let mut db = rusqlite::Connection::open(path)?;
    db.execute_batch("CREATE TABLE passages(id INTEGER PRIMARY KEY, content TEXT NOT NULL)")?;
    let batch = db.transaction()?;
    {
        let mut insert = batch.prepare("INSERT INTO passages VALUES (?, ?)")?;
        for key in keys {
            insert.execute((key as i64, format!("{word} {key} ").repeat(50)))?;
        }
    }
    Ok(batch.commit()?)
}

fn run(runs: usize, step: &str, database: &Path, archive: &Path) -> Result<(f64, f64)> {
    let path = |path: &Path| path.to_str().map(str::to_owned).ok_or("not a path in UTF-8");
    ours(runs, &[step, &path(database)?, &path(archive)?])
}

fn step(args: &[String]) -> Result<()> {
    let [step, database, archive] = args else { return Err("a step and two paths".into()) };
    let stores = || -> Result<Stores> {
        Ok(Stores::new("bench", "1.0.0").with("state", SqliteStore::open(database)?))
    };
    match step.as_str() {
        "create" | "create-zstd" => {
            let mut options = WriterOptions::default();
            if step == "create-zstd" {
                options.codec = Codec::Zstd;
            }
            let options = BackupOptions::new().overwrite(true).writer(options);
            futures::executor::block_on(stores()?.backup_to_file(archive, &options))?;
        }
        "validate" => {
            Archive::open(archive)?.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})?;
        }
        "info" => drop(Archive::open(archive)?.manifest().stores.len()),
        "create-records" => {
            let store = SqliteStore::open(database)?.logical();
            let stores = Stores::new("bench", "1.0.0").with("state", store);
            let options = BackupOptions::new().overwrite(true);
            futures::executor::block_on(stores.backup_to_file(archive, &options))?;
        }
        "restore" | "restore-records" | "merge" => {
            // Its time is that of a backup.
            let mut options = RestoreOptions::new().no_safety_backup();
            if step == "merge" {
                options = options.merge().conflict(Conflict::Overwrite);
            }
            let archive = Archive::open(archive)?;
            let plan =
                futures::executor::block_on(stores()?.plan_restore_with(&archive, &options))?;
            futures::executor::block_on(plan.execute())?;
        }
        other => return Err(format!("no such step: {other}").into()),
    }
    Ok(())
}

// Passages of text made of runs of real words, each with an embedding like real ones.
fn fill(path: &Path, bytes: u64) -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/data");
    let text = fs::read_to_string(data.join("points.jsonl"))?;
    let words: Vec<&str> = text.split(' ').collect();
    let vectors = fs::read(data.join("vectors.npy"))?;
    let rows: Vec<&[u8]> = vectors[128..].chunks_exact(4 * 384).collect();
    let mut state = 42_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut db = rusqlite::Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE passages(id INTEGER PRIMARY KEY, content TEXT NOT NULL, vector BLOB NOT NULL)",
    )?;
    let mut written = 0;
    while written < bytes {
        let batch = db.transaction()?;
        {
            let mut insert =
                batch.prepare("INSERT INTO passages(content, vector) VALUES (?, ?)")?;
            for _ in 0..2000 {
                let mut content = String::new();
                while content.len() < 2400 {
                    let from = random(words.len() - 12);
                    content.push_str(&words[from..from + 3 + random(9)].join(" "));
                    content.push(' ');
                }
                // The low bits of a real vector are noise, and so are these.
                let mut vector = rows[random(rows.len())].to_vec();
                for value in vector.chunks_exact_mut(4) {
                    value[0] = random(256) as u8;
                    value[1] = random(256) as u8;
                }
                insert.execute((&content, &vector))?;
                written += (content.len() + vector.len()) as u64;
            }
        }
        batch.commit()?;
    }
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}
