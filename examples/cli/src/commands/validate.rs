//! `validate`: is an archive whole and undamaged.

use backup_kit::{Result, archive::VerifyMode};
use serde_json::json;

use super::{Context, drill, place};
use crate::{
    args::Validate,
    exit,
    progress::Meter,
    text::{plain, size, things},
};

/// What a check can and cannot tell.
const PROVES: &str = "integrity, not authenticity";

pub(super) fn run(context: &Context<'_>, args: &Validate) -> Result<u8> {
    let screen = &context.screen;
    let archive = context.open(&args.archive.archive)?;
    let path = place(&archive, &args.archive.archive);
    let mode = if args.quick { VerifyMode::Quick } else { VerifyMode::Full };
    let meter = Meter::start(screen, "checking", Some(archive.manifest().index.bytes));
    let report = archive.verify(mode, &context.cancel, &mut |bytes| meter.advance(bytes));
    meter.end();
    let report = report.map_err(|e| e.on(&path))?;

    let drill = if args.drill {
        Some(drill::run(context, &archive).map_err(|e| e.on(&path))?)
    } else {
        None
    };

    let manifest = archive.manifest();
    let mut document = json!({
        "path": path,
        "id": manifest.id,
        "valid": true,
        "full": report.full,
        "parts": report.parts,
        "bytes": report.bytes,
        "records": report.records,
        "partial": manifest.partial,
        "proves": PROVES,
    });
    let parts = things(report.parts, "part");
    let checked = if report.full {
        let records = things(report.records, "record");
        format!("{parts}, {}, {records}: every hash and digest agrees", size(report.bytes))
    } else {
        format!("{parts}: trailer, root, index and sizes agree; contents were not read")
    };
    let mut text = format!(
        "{} {}\n  {checked}\n  {}\n",
        screen.style.good("valid"),
        plain(&path),
        screen.style.dim(&format!("{PROVES}: who can change an archive can change its hashes")),
    );
    if manifest.partial {
        let notices = things(manifest.notice_count, "notice");
        text.push_str(&format!(
            "  {} something was missing when it was made: {notices}, see info\n",
            screen.style.warn("partial"),
        ));
    }
    let mut code = exit::DONE;
    if let Some(drill) = &drill {
        document["drill"] = drill.document();
        for name in &drill.restored {
            text.push_str(&format!("  {}: restored for a drill and equal\n", plain(name)));
        }
        for (name, kind) in &drill.left_out {
            let what = format!("{name}: not drilled: a store of kind {kind} has no embedded form");
            text.push_str(&format!("  {} {}\n", screen.style.warn("partial"), plain(&what)));
            code = exit::PARTIAL;
        }
    }
    screen.result(document, &text)?;
    Ok(code)
}
