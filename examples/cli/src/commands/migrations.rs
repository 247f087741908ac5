//! `migrations list`: what leads from one version to another.

use backup_kit::Result;
use serde_json::json;

use super::Context;
use crate::{describe, exit};

pub(super) fn list(context: &Context<'_>) -> Result<u8> {
    let screen = &context.screen;
    let migrations = context.config()?.migrations.available();
    let text = describe::migrations(&migrations, screen.style);
    screen.result(json!({"migrations": migrations}), &text)?;
    Ok(exit::DONE)
}
