//! A real memory, backed up while it is written to, destroyed, and restored.
//!
//!     cargo run --release -p quickstart
//!     cargo run --release -p quickstart --features qdrant-edge
//!
//! The second keeps the embeddings in a shard of Qdrant's embedded engine.
//!
//! Everything happens in `target/quickstart`, and stays there to be looked at.

// This is a program: what it has to say, it prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod memory;
#[cfg_attr(feature = "qdrant-edge", path = "vectors_edge.rs")]
mod vectors;
mod writer;

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use backup_kit::{
    BackupReport, Catalog, Error, ErrorKind, Result, Stores,
    archive::{Archive, PartKind, VerifyMode},
    files::FilesStore,
    manifest::{Consistency, StoreConsistency},
    sqlite::SqliteStore,
};
use futures::executor::block_on;

use crate::{
    memory::{Memory, Recall},
    writer::{Gate, Writer},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let project = project.canonicalize()?;
    // Short paths, for the commands that are shown at the end.
    std::env::set_current_dir(&project)?;
    let folder = PathBuf::from("target/quickstart");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;

    title("A memory of real data: passages of the PostgreSQL manual");
    let memory = Memory::fill(&folder, Path::new("examples/quickstart/data"))?;
    let before = memory.look()?;
    println!(
        "  state.db   SQLite: {} documents, {} passages, full text",
        before.documents, before.passages
    );
    println!("  vectors    {}: {} embeddings", vectors::PLACE, before.vectors.count);
    println!("  uploads/   a folder: {} files", before.uploads);

    title("A backup, while a writer keeps writing");
    let writer = Writer::start(&memory.state)?;
    thread::sleep(Duration::from_millis(100));
    let catalog = Catalog::open(folder.join("backups"))?;
    let start = (Instant::now(), writer.written());
    let stores = stores(&memory, Some(writer.gate()))?;
    let backup = block_on(stores.backup(&catalog))?;
    let end = (start.0.elapsed(), writer.written());
    let paused = writer.gate().longest_pause();
    let archive = backup.path.clone().unwrap_or_default();
    println!("  {} ({})", archive.display(), size(backup.size));
    println!(
        "  took {:.0?}; the writer committed {} transactions meanwhile",
        end.0,
        end.1 - start.1
    );
    println!("  and waited {paused:.1?} while all stores were fixed at one moment");
    thread::sleep(Duration::from_millis(50));
    let written = writer.stop()?;
    println!("  afterwards it went on to {written} in all");

    title("What is in it");
    show(&backup);
    let opened = catalog.latest()?;
    let checked = opened.verify(VerifyMode::Full, &Default::default(), &mut |_| {})?;
    println!("  verified: {} parts, {} records, every hash", checked.parts, checked.records);

    title("A disaster");
    drop(stores);
    let memory = memory.destroy()?;
    println!("  state.db deleted, uploads/ deleted, vectors gone");

    title("The plan of the restore");
    let stores = self::stores(&memory, None)?;
    let plan = block_on(stores.plan_restore(&opened))?;
    indented(&plan.to_string());

    title("The restore: all of it, or nothing");
    let report = block_on(plan.execute())?;
    for store in &report.stores {
        println!("  {:8} live, read back, and equal to the backup", store.name);
    }

    title("The proof, by the application's own reading");
    let after = memory.look()?;
    equal("documents, passages", &before.rows, &after.rows)?;
    equal("uploads/", &before.files, &after.files)?;
    equal("vectors: records", &before.vectors.records, &after.vectors.records)?;
    equal("vectors: embeddings", &before.vectors.embeddings, &after.vectors.embeddings)?;
    if before != after {
        return Err(Error::new(ErrorKind::Mismatch, "something else differs"));
    }
    let recalls = Recall::count(&memory.state)?;
    if !(start.1..=end.1).contains(&recalls) {
        return Err(Error::new(ErrorKind::Mismatch, "the writes are not of the backup's time"));
    }
    println!(
        "  {:20} 1 to {recalls} without a gap, the counter agrees: one moment of the backup",
        "the writer's rows"
    );
    println!(
        "  {:20} finds {} passages about \"vacuum\", as before",
        "full-text search", after.found
    );
    let again = block_on(stores.backup(&catalog))?;
    for (name, store) in &backup.manifest.stores {
        if again.manifest.stores.get(name).map(|again| again.content()) != Some(store.content()) {
            return Err(Error::new(ErrorKind::Mismatch, "a second backup differs").on(name));
        }
    }
    println!("  {:20} has the same digests in every store", "a second backup");

    title("The same file, with other tools");
    commands(&folder, &archive, &opened)
}

fn stores(memory: &Memory, pause: Option<Gate>) -> Result<Stores> {
    let stores = Stores::new("quickstart", env!("CARGO_PKG_VERSION"))
        .with("state", SqliteStore::open(&memory.state)?)
        .with("uploads", FilesStore::open(&memory.uploads)?)
        .with("vectors", memory.vectors.store());
    Ok(match pause {
        Some(gate) => stores.quiesce(gate),
        None => stores,
    })
}

fn title(text: &str) {
    println!("\n{text}");
}

fn indented(text: &str) {
    text.lines().for_each(|line| println!("  {line}"));
}

fn size(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn equal(what: &str, before: &str, after: &str) -> Result<()> {
    let same = before == after;
    let sign = if same { "==" } else { "IS NOT" };
    println!("  {what:20} {}… {sign} {}…", &before[..16], &after[..16]);
    if same { Ok(()) } else { Err(Error::new(ErrorKind::Mismatch, "content differs").on(what)) }
}

fn show(backup: &BackupReport) {
    let manifest = &backup.manifest;
    println!("  id {}", manifest.id);
    println!(
        "  {}",
        match manifest.consistency {
            Consistency::Consistent => "all stores at one and the same moment",
            _ => "the stores at different moments",
        }
    );
    let line = |name: &str, what: String, digest: &dyn Display| {
        println!("             {name:10} {what:>13}  digest {}…", short(digest));
    };
    for (name, store) in &manifest.stores {
        let how = match store.consistency {
            StoreConsistency::Pinned => "fixed by the store itself",
            StoreConsistency::Held => "copied while the writer waited",
            _ => "copied while it could change",
        };
        println!("  {name:8}   {}, {how}", store.engine);
        for (file, blob) in &store.blobs {
            line(file, size(blob.len), &blob.digest);
        }
        for (collection, facts) in &store.collections {
            line(collection, format!("{} records", facts.tally.records), &facts.tally.digest);
            for (vector, tally) in &facts.tally.vectors {
                line(&format!("  .{vector}"), format!("{} vectors", tally.count), &tally.digest);
            }
        }
    }
}

fn short(digest: &dyn Display) -> String {
    digest.to_string()[..16].to_owned()
}

fn commands(folder: &Path, archive: &Path, opened: &Archive) -> Result<()> {
    let opened_at = folder.join("opened");
    let vectors = opened.entries().find_map(|part| match part {
        Ok(part) if matches!(part.kind, PartKind::Vector { .. }) => Some(Ok(part.path)),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    });
    let vectors = vectors.transpose()?.unwrap_or_default();
    let to = opened_at.display();
    println!("  $ mkdir -p {to}");
    println!("  $ tar xzf {} -C {to}", archive.display());
    println!("  $ (cd {to} && sha256sum --quiet -c checksums.sha256)");
    println!(
        "  $ python3 -c \"import numpy; v = numpy.load('{to}/{vectors}'); print(v.shape, v.dtype)\""
    );
    Ok(())
}
