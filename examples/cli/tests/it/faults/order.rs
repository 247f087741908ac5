//! What is written down before what: an order that a power cut would find out.

use super::{
    scene::{Catalog, RESTORE, Scene},
    strace::{Blow, Strike, strike, usable, watch},
};

const NAMES: [&str; 8] =
    ["rename", "renameat", "renameat2", "linkat", "fsync", "fdatasync", "syncfs", "write"];

/// The folder of a name in a call: of `renameat(3<folder>, "old", 3<folder>, "name", …)`, or
/// of `rename("folder/old", "folder/name")`.
fn folder(call: &str) -> String {
    let args = &call[call.find('(').unwrap() + 1..call.rfind(')').unwrap()];
    let flag = |field: &&str| field.starts_with("RENAME") || *field == "0";
    let fields: Vec<_> = args.split(", ").filter(|field| !flag(field)).collect();
    let [.., at, name] = fields[..] else { panic!("{call}") };
    let name = name.trim_matches('"');
    let at = at.split_once('<').map_or("", |(_, path)| path.trim_end_matches('>'));
    let at = if at.is_empty() || at == "." { String::new() } else { format!("{at}/") };
    let whole = format!("{at}{name}");
    whole.rsplit_once('/').map_or(".", |(folder, _)| folder).to_owned()
}

fn is_name(call: &str) -> bool {
    call.starts_with("rename") || call.starts_with("linkat(")
}

#[test]
fn a_name_is_synced_before_anything_relies_on_it() {
    if !usable() {
        return;
    }
    let create = (Scene::fresh(Catalog::Beside), &["create"][..]);
    let restore = |catalog| (Scene::changed(catalog), &RESTORE[..]);
    for (scene, args) in [create, restore(Catalog::Beside), restore(Catalog::Inside)] {
        let traced = watch(&scene.world, args, &NAMES);
        assert_eq!(traced.ran.code, Some(0), "{:?}", traced.ran);
        let mut names = 0;
        for (place, call) in traced.calls.iter().enumerate().filter(|(_, call)| is_name(call)) {
            let folder = folder(call);
            let synced = |next: &&String| {
                next.starts_with("fsync(") && next.contains(&format!("<{folder}>"))
            };
            let after = &traced.calls[place + 1..];
            let sync = after.iter().position(|next| synced(&next));
            // The journal's next line, or what the tool says, comes after it.
            let relied = after
                .iter()
                .position(|next| next.starts_with("write(1<") || next.contains("restore.journal>"));
            assert!(sync.is_some() && sync < relied, "{folder}: {call}: {after:#?}");
            names += 1;
        }
        assert!(names > 0, "{:#?}", traced.calls);
    }
}

#[test]
fn the_archive_is_synced_before_it_has_its_name() {
    if !usable() {
        return;
    }
    let scene = Scene::fresh(Catalog::Beside);
    let calls = watch(&scene.world, &["create"], &NAMES).calls;
    let of_archive = |call: &&String| call.contains(".partial");
    let last: Vec<_> = calls.iter().filter(of_archive).rev().take(3).collect();
    assert!(last[0].starts_with("linkat("), "{last:?}");
    assert!(last[1].starts_with("fsync("), "{last:?}");
    assert!(last[2].starts_with("write("), "{last:?}");
}

#[test]
fn what_was_not_synced_is_not_sealed() {
    if !usable() {
        return;
    }
    let mut failed = 0;
    for nth in 1.. {
        let scene = Scene::changed_in(Catalog::Beside, Some("state"));
        let traced = strike(&scene.world, &RESTORE, &Strike::new("fsync", nth, Blow::Eio));
        if traced.hits().is_empty() {
            break;
        }
        let staged = |call: &String| call.contains("/staged.db") && call.contains("(INJECTED");
        if let Some(place) = traced.calls.iter().position(staged) {
            failed += 1;
            let after = &traced.calls[place..];
            assert!(!after.iter().any(|call| call.contains("seal.json")), "{after:#?}");
        }
    }
    assert!(failed >= 3, "{failed}");
}
