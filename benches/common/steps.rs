//! The steps of a bench against a server, each in a process of its own: export, validate, import,
//! restore.
//!
//! Beside `mod.rs`, because not every bench has the engine among its dependencies.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use backup_core::{
    BackupOptions, Cancel, Event, RestoreOptions, Sink, Source, Stores,
    archive::{Archive, Codec, VerifyMode, WriterOptions},
};

use super::common::{Result, peak};

/// Does one of the steps with a store, and `archive`, whose name is the codec where it is `zstd`.
///
/// An import ends, and with it the process, once all is staged: what a bare loop does, too.
pub(crate) async fn step(
    step: &str,
    store: impl Source + Sink + 'static,
    archive: &Path,
) -> Result<()> {
    let last = Arc::new(Mutex::new(Instant::now()));
    let seen = Arc::clone(&last);
    let observer = move |event: &Event| {
        if let (Event::Part { .. }, Ok(mut seen)) = (event, seen.lock()) {
            *seen = Instant::now();
        }
    };
    let stores = Stores::new("bench", "1.0.0").with("store", store).observe(observer);
    match step {
        "export" => {
            let mut writer = WriterOptions::default();
            let zstd = archive.file_name().is_some_and(|name| name == "zstd");
            writer.codec = if zstd { Codec::Zstd } else { Codec::Gzip };
            let options = BackupOptions::new().overwrite(true).writer(writer);
            stores.backup_to_file(archive, &options).await?;
        }
        "validate" => {
            Archive::open(archive)?.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {})?;
        }
        "import" | "restore" => {
            // Its time is that of an export.
            let options = RestoreOptions::new().no_safety_backup();
            let plan = stores.plan_restore_with(&Archive::open(archive)?, &options).await?;
            let start = Instant::now();
            plan.execute().await?;
            if step == "import" {
                let last = last.lock().map_err(|_| "a lock")?;
                println!("{} {}", last.duration_since(start).as_secs_f64(), peak()?);
                std::process::exit(0);
            }
        }
        other => return Err(format!("no such step: {other}").into()),
    }
    Ok(())
}
