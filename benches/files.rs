//! Many small files, against `tar czf`: size, time and memory.
//!
//! `cargo bench --bench files [-- COUNT] [noise|text]` (default 1 000 000) writes so many files of
//! 1 KiB: once of noise, once of text.
#![allow(clippy::print_stdout, missing_docs)]

mod common;

use std::{env, fs, path::Path};

use backup_kit::{
    BackupOptions, Cancel, RestoreOptions, Stores,
    archive::{Archive, VerifyMode},
    files::FilesStore,
};
use common::{Result, Row, folder, head, least, number, ours, row, shell, worker};

const KIB: usize = 1024;

fn main() -> Result<()> {
    if worker(step)? {
        return Ok(());
    }
    let count = number().unwrap_or(1_000_000) as usize;
    for (name, make) in [("noise", noise as fn() -> Vec<u8>), ("text", text)] {
        if env::args().any(|arg| ["noise", "text"].contains(&&*arg) && arg != name) {
            continue;
        }
        let folder = folder("bench-files")?;
        let (tree, packed) = (folder.join("tree"), folder.join("tree.tar.gz"));
        let (archive, target) = (folder.join("a.tar.gz"), folder.join("target"));
        fs::create_dir(&target)?;
        fill(&tree, count, &make())?;
        println!("{count} files of {name}\n");
        head();
        let tar = least(1, || {
            shell(&format!(
                "tar czf {p} -C {t} .; sync {p}",
                p = packed.display(),
                t = tree.display()
            ))
        })?;
        let tar_bytes = fs::metadata(&packed)?.len();
        row("tar czf", &Row { seconds: tar, bytes: Some(tar_bytes), against: None, peak: None });
        let steps =
            [("create", &tree, Some(tar)), ("validate", &tree, None), ("restore", &target, None)];
        for (name, tree, against) in steps {
            let paths = [tree.to_str(), archive.to_str()].map(|path| path.unwrap_or_default());
            let (seconds, peak) = ours(1, &[name, paths[0], paths[1]])?;
            let bytes = (name == "create").then(|| fs::metadata(&archive).map(|m| m.len()));
            row(name, &Row { seconds, bytes: bytes.transpose()?, against, peak: Some(peak) });
        }
        let ours = fs::metadata(&archive)?.len();
        println!("size against tar czf: {:.3}\n", ours as f64 / tar_bytes as f64);
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn step(args: &[String]) -> Result<()> {
    let [step, tree, archive] = args else { return Err("a step and two paths".into()) };
    let stores = || -> Result<Stores> {
        Ok(Stores::new("bench", "1.0.0").with("files", FilesStore::open(tree)?))
    };
    match step.as_str() {
        "create" => {
            let options = BackupOptions::new().overwrite(true);
            futures::executor::block_on(stores()?.backup_to_file(archive, &options))?;
        }
        "validate" => {
            Archive::open(archive)?.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})?;
        }
        "restore" => {
            // Its time is that of a backup.
            let options = RestoreOptions::new().no_safety_backup();
            let archive = Archive::open(archive)?;
            let plan =
                futures::executor::block_on(stores()?.plan_restore_with(&archive, &options))?;
            futures::executor::block_on(plan.execute())?;
        }
        other => return Err(format!("no such step: {other}").into()),
    }
    Ok(())
}

fn noise() -> Vec<u8> {
    let mut state = 42_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    // Longer than what gzip looks back at, so that no file is found again.
    (0..64 << 20).map(|_| next()).collect()
}

fn text() -> Vec<u8> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/data/points.jsonl");
    fs::read(data).unwrap_or_default()
}

// A thousand files a folder, each a piece of the sample.
fn fill(tree: &Path, count: usize, sample: &[u8]) -> Result<()> {
    for n in 0..count {
        let folder = tree.join(format!("{:04}", n / 1000));
        if n % 1000 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let from = n * KIB % (sample.len() - KIB);
        fs::write(folder.join(format!("{n:07}.txt")), &sample[from..from + KIB])?;
    }
    Ok(())
}
