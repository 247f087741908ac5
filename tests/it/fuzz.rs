//! The bodies of the fuzz targets, over their seeds and over what fuzzing has found.

use std::{fs, path::Path};

use backup_kit::{
    Cancel,
    archive::{Archive, VerifyMode},
};

#[test]
fn seeds_and_reproducers_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (target, run) in backup_kit_fuzz::TARGETS {
        let mut inputs = 0;
        for kind in ["seeds", "reproducers"] {
            let Ok(files) = fs::read_dir(folder.join(kind).join(target)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                let input = fs::read(&path).unwrap();
                let passed = std::panic::catch_unwind(|| run(&input));
                assert!(passed.is_ok(), "{}", path.display());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "{target} has neither seeds nor reproducers");
    }
}

#[test]
fn what_seals_the_forgeries_seals_whole_archives() {
    for archive in backup_kit_fuzz::unforged() {
        let archive = Archive::from_source(archive).unwrap();
        archive.verify(VerifyMode::Full, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(archive.manifest().index.pages.len(), 3);
    }
}
