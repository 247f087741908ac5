//! Which SQLite runs, and whether it can be trusted.

use backup_core::{Metadata, Notice, NoticeKind};

/// The first release whose WAL is safe: an older one can corrupt a database when the log is
/// reset while another connection checkpoints.
pub(crate) const SAFE: i32 = 3_051_003;

fn text() -> Option<String> {
    judge(rusqlite::version_number(), rusqlite::version())
}

fn judge(number: i32, name: &str) -> Option<String> {
    (number < SAFE).then(|| {
        format!(
            "SQLite {name} is linked; releases before 3.51.3 can corrupt a database in WAL mode"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_library_is_named() {
        let text = judge(3_051_002, "3.51.2").unwrap();
        assert!(text.contains("3.51.2"), "{text}");
        assert_eq!(judge(SAFE, "3.51.3"), None);
    }

    #[cfg(feature = "bundled")]
    #[test]
    fn the_built_in_library_is_safe() {
        assert!(rusqlite::version_number() >= SAFE, "{}", rusqlite::version());
        assert!(notice().is_none() && warning().is_empty());
    }
}
