//! `salvage`: what is whole in a damaged archive.

use backup_kit::{Result, archive::Salvage};
use serde_json::json;

use super::Context;
use crate::{
    args, exit,
    text::{Side, Table, plain, size, things},
};

/// How many losses are shown without `--verbose`.
const SHOWN: usize = 20;

pub(super) fn run(context: &Context<'_>, args: &args::Salvage) -> Result<u8> {
    let screen = &context.screen;
    let report = Salvage::open(&args.file)?.extract(&args.to, &context.cancel)?;
    let to = args.to.display().to_string();
    let mut text = format!(
        "{}, {} into {}\n",
        things(report.whole, "whole part"),
        size(report.whole_bytes),
        plain(&to)
    );
    if report.lost_count > 0 {
        let shown = if screen.verbose { usize::MAX } else { SHOWN };
        let mut lost = Table::bare(&[Side::Left, Side::Left]);
        for loss in report.lost.iter().take(shown) {
            lost.row([loss.what.clone(), loss.reason.clone()]);
        }
        let count = format!("lost: {}", things(report.lost_count, "part"));
        text.push_str(&format!("{}\n", screen.style.warn(&count)));
        text.push_str(&lost.render("  ", screen.style));
    }
    let code = if report.lost_count == 0 { exit::DONE } else { exit::PARTIAL };
    screen.result(
        json!({
            "path": args.file.display().to_string(),
            "id": report.id,
            "to": to,
            "parts": report.whole,
            "bytes": report.whole_bytes,
            "partial": report.lost_count > 0,
            "lost_count": report.lost_count,
            "lost": report.lost,
        }),
        &text,
    )?;
    Ok(code)
}
