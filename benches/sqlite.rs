//! Backup, validation and restore of a large SQLite database, against the tools that a user
//! would take instead, in one run.
//!
//! `cargo bench --bench sqlite --features sqlite-bundled,zstd [-- MB]` (default 1000) needs
//! `sqlite3`, `pigz`, `sha256sum`, and `restic` where it is to be compared. Every figure is
//! the least of three runs; each of ours is a process of its own, whose peak memory is shown.
#![allow(clippy::print_stdout, missing_docs)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use backup_kit::{
    BackupOptions, Cancel, Stores,
    archive::{Archive, Codec, VerifyMode, WriterOptions},
    sqlite::{SqliteStore, rusqlite},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const RUNS: usize = 3;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "worker") {
        return worker(&args[at + 1], Path::new(&args[at + 2]), Path::new(&args[at + 3]));
    }
    let megabytes: u64 = args.iter().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1000);
    // Beside the project, not in a small /tmp.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-sqlite");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let database = folder.join("state.db");
    fill(&database, megabytes * 1_000_000)?;
    let size = fs::metadata(&database)?.len();
    println!("database: {:.0} MB\n", size as f64 / 1e6);
    println!("{:<44} {:>8} {:>9} {:>8} {:>9}", "", "seconds", "MB", "ratio", "peak MiB");

    let copy = folder.join("copy.db");
    let packed = folder.join("copy.db.gz");
    let two_steps = best(|| {
        shell(&format!(
            "rm -f {c} {p}; sqlite3 {d} '.backup {c}'; pigz -6 -k {c}; sync {p}",
            c = copy.display(),
            p = packed.display(),
            d = database.display()
        ))
    })?;
    let pigz_size = fs::metadata(&packed)?.len();
    row("sqlite3 .backup, pigz -6", two_steps, Some(pigz_size), None, None);
    let hashed = best(|| shell(&format!("pigz -dc {} | sha256sum > /dev/null", packed.display())))?;

    let mut restic = None;
    if Command::new("restic").arg("version").output().is_ok() {
        let repo = folder.join("restic");
        let time = best(|| {
            shell(&format!(
                "rm -rf {r}; export RESTIC_PASSWORD=x; restic -q init -r {r} >/dev/null; restic -q backup --no-cache -r {r} {c}",
                r = repo.display(),
                c = copy.display()
            ))
        })?;
        restic = Some(time);
        row("restic backup of the copy (init included)", time, None, None, None);
    }
    for (name, step, against) in [
        ("backup-kit create", "create", Some(two_steps)),
        ("backup-kit create, zstd", "create-zstd", restic),
    ] {
        let archive = folder.join(format!("{step}.archive"));
        let (time, peak) = ours(step, &database, &archive)?;
        row(name, time, Some(fs::metadata(&archive)?.len()), against, Some(peak));
    }
    let archive = folder.join("create.archive");
    println!("size against pigz: {:.3}\n", fs::metadata(&archive)?.len() as f64 / pigz_size as f64);
    row("pigz -dc | sha256sum", hashed, None, None, None);
    let (time, peak) = ours("validate", &database, &archive)?;
    row("backup-kit validate", time, None, Some(hashed), Some(peak));
    let listed = best(|| shell(&format!("tar tzf {} > /dev/null", archive.display())))?;
    row("tar tzf", listed, None, None, None);
    let (time, peak) = ours("info", &database, &archive)?;
    row("backup-kit info", time, None, Some(listed), Some(peak));
    let (time, peak) = ours("restore", &database, &archive)?;
    row("backup-kit restore", time, None, None, Some(peak));
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn row(name: &str, seconds: f64, size: Option<u64>, against: Option<f64>, peak: Option<f64>) {
    let size = size.map_or(String::new(), |size| format!("{:.0}", size as f64 / 1e6));
    let ratio = against.map_or(String::new(), |other| format!("{:.2}×", other / seconds));
    let peak = peak.map_or(String::new(), |peak| format!("{peak:.0}"));
    println!("{name:<44} {seconds:>8.3} {size:>9} {ratio:>8} {peak:>9}");
}

fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("bash").args(["-ec", command]).status()?;
    if status.success() { Ok(()) } else { Err(format!("failed: {command}").into()) }
}

// Seconds and peak memory in MiB, as the process itself measured them.
fn ours(step: &str, database: &Path, archive: &Path) -> Result<(f64, f64)> {
    let (mut least, mut peak) = (f64::MAX, 0_f64);
    for _ in 0..RUNS {
        let out = Command::new(env::current_exe()?)
            .args(["worker", step])
            .args([database, archive])
            .output()?;
        let text = String::from_utf8(out.stdout)?;
        let mut figures = text.split_whitespace().map(str::parse::<f64>);
        match (figures.next(), figures.next()) {
            (Some(Ok(seconds)), Some(Ok(mib))) if out.status.success() => {
                least = least.min(seconds);
                peak = peak.max(mib);
            }
            _ => return Err(String::from_utf8_lossy(&out.stderr).into_owned().into()),
        }
    }
    Ok((least, peak))
}

fn worker(step: &str, database: &Path, archive: &Path) -> Result<()> {
    let stores = || -> Result<Stores> {
        Ok(Stores::new("bench", "1.0.0").with("state", SqliteStore::open(database)?))
    };
    let start = Instant::now();
    match step {
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
        "restore" => {
            let plan =
                futures::executor::block_on(stores()?.plan_restore(&Archive::open(archive)?))?;
            futures::executor::block_on(plan.execute())?;
        }
        other => return Err(format!("no such step: {other}").into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().split(' ').next()?.parse::<f64>().ok());
    println!("{seconds} {}", peak.unwrap_or(f64::NAN) / 1024.0);
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
