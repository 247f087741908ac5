//! Which SQLite runs, and whether it can be trusted.

use backup_core::{Metadata, Notice, NoticeKind};

/// The first release whose WAL is safe: an older one can corrupt a database when the log is
/// reset while another connection checkpoints.
pub(crate) const SAFE: i32 = 3_051_003;

fn text() -> Option<String> {
    (rusqlite::version_number() < SAFE).then(|| {
        format!(
            "SQLite {} is linked; releases before 3.51.3 can corrupt a database in WAL mode",
            rusqlite::version()
        )
    })
}

/// A warning for the manifest, if one is due.
pub(crate) fn warning() -> Metadata {
    text().map(|text| ("warning".to_owned(), text.into())).into_iter().collect()
}

/// A warning for the report, if one is due.
pub(crate) fn notice() -> Option<Notice> {
    text().map(|detail| Notice {
        kind: NoticeKind::Remark,
        collection: String::new(),
        subject: "SQLite".into(),
        detail,
    })
}

#[cfg(all(test, feature = "bundled"))]
mod tests {
    #[test]
    fn the_built_in_library_is_safe() {
        assert!(rusqlite::version_number() >= super::SAFE, "{}", rusqlite::version());
        assert!(super::notice().is_none());
    }
}
