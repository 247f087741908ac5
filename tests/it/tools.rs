//! Programs that tests compare with.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

/// A Python with a module: the system's own, or the first on the path.
pub(crate) fn python(module: &str) -> Option<&'static str> {
    ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let probe = Command::new(python).args(["-c", &format!("import {module}")]).output();
        probe.is_ok_and(|output| output.status.success())
    })
}

/// Whether `program` can be run. Where not, the test is skipped, aloud, or fails where
/// `BACKUP_KIT_REQUIRE` is set.
pub(crate) fn available(program: &str) -> bool {
    let found = match program {
        "numpy" | "zlib" | "zstandard" => python(program).is_some(),
        program => {
            let probe = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            probe.is_ok_and(|output| output.status.success())
        }
    };
    if !found {
        let required = std::env::var_os("BACKUP_KIT_REQUIRE").is_some_and(|v| !v.is_empty());
        assert!(!required, "{program} is missing, and BACKUP_KIT_REQUIRE is set");
        // Not through the macro: the harness would keep it to itself.
        let line = format!("SKIPPED: what needs {program}, which is missing here\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    }
    found
}

/// Runs a command that has to succeed without a word of complaint.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {complaint}", output.status);
    assert_eq!(complaint, "", "{command:?}");
    output
}
