//! The smallest host: a folder, backed up and restored.
//!
//!     cargo run --example folder -- FOLDER CATALOG

// This is a program: what it has to say, it prints.
#![allow(clippy::print_stdout)]

use backup_kit::{Catalog, Result, Stores, files::FilesStore};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (folder, catalog) =
        (args.next().unwrap_or("uploads".into()), args.next().unwrap_or("backups".into()));
    futures::executor::block_on(async {
        let memory = Stores::new("folder", env!("CARGO_PKG_VERSION"))
            .with("uploads", FilesStore::open(folder)?);
        let catalog = Catalog::open(catalog)?;
        let backup = memory.backup(&catalog).await?;
        println!("backed up as {}", backup.id);

        let plan = memory.plan_restore(&catalog.latest()?).await?;
        println!("{plan}");
        let report = plan.execute().await?;
        println!("restored {}", report.archive);
        Ok(())
    })
}
