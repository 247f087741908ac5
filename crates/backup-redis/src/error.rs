//! What a server's refusal means.

use backup_core::{Error, ErrorKind};
use redis::{RedisError, ServerError};

/// An error of the connection or of the server.
pub(crate) fn redis(what: &str, error: RedisError) -> Error {
    let code = error.code().unwrap_or_default().to_owned();
    let known = of_code(&code, error.detail().unwrap_or_default());
    let (kind, advice) = known.unwrap_or_else(|| {
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            return (ErrorKind::PermissionDenied, "check user name and password");
        }
        let gone = error.is_io_error()
            || error.is_timeout()
            || error.is_connection_dropped()
            || error.is_connection_refusal();
        if gone {
            (ErrorKind::Unreachable, "check that the server runs and that its address is right")
        } else if error.kind() == redis::ErrorKind::InvalidClientConfig {
            (ErrorKind::InvalidInput, "correct the options")
        } else {
            (ErrorKind::Io, "look into the log of the Redis server")
        }
    });
    Error::new(kind, what).because(Said(error.to_string())).advise(advice)
}

/// An error that came in place of a reply.
pub(crate) fn server(what: &str, error: &ServerError) -> Error {
    refused(what, error.code(), error.details().unwrap_or_default())
}

/// An error of this code and text.
pub(crate) fn refused(what: &str, code: &str, detail: &str) -> Error {
    let known = of_code(code, detail);
    let (kind, advice) = known.unwrap_or((ErrorKind::Io, "look into the log of the Redis server"));
    Error::new(kind, what).because(Said(format!("{code} {}", detail.trim()))).advise(advice)
}

/// What the server said, without the connection's address and secrets.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

fn of_code(code: &str, detail: &str) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        "OOM" => (
            ErrorKind::NoSpace,
            "raise `maxmemory`, or restore into another server; live content is as before",
        ),
        "WRONGPASS" | "NOAUTH" => (ErrorKind::PermissionDenied, "check user name and password"),
        "NOPERM" => (
            ErrorKind::PermissionDenied,
            "give the user the right to run this command, or use another user",
        ),
        "DENIED" => (
            ErrorKind::PermissionDenied,
            "the server runs in protected mode: set a password, or bind it to the address used",
        ),
        "READONLY" => (ErrorKind::Unsupported, "use the address of the primary"),
        "BUSYKEY" => (ErrorKind::AlreadyExists, "remove what earlier restores left"),
        "LOADING" | "BUSY" => (ErrorKind::Busy, "wait until the server is ready, then try again"),
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => (
            ErrorKind::Changed,
            "the cluster moved slots meanwhile: run the operation again when it is at rest",
        ),
        "CLUSTERDOWN" | "MASTERDOWN" => {
            (ErrorKind::Unreachable, "wait until the cluster is whole again")
        }
        "MISCONF" => (ErrorKind::Io, "the server cannot write its own snapshots: see its log"),
        "WRONGTYPE" => (ErrorKind::Changed, "run the operation again"),
        "ERR" if detail.contains("DUMP payload version or checksum") => (
            ErrorKind::Incompatible,
            "the payload is damaged or of a newer server: restore to a server of the version \
             that the manifest names",
        ),
        "ERR" if detail.contains("unknown command 'JSON.") => {
            (ErrorKind::Unsupported, "load the module RedisJSON, or leave its documents out")
        }
        "ERR" if detail.contains("unknown command") => {
            (ErrorKind::Unsupported, "use Redis 7.0 or newer, with this command allowed")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As servers say it.
    #[test]
    fn every_refusal_names_a_next_step() {
        for (said, kind, step) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                ErrorKind::NoSpace,
                "`maxmemory`",
            ),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                ErrorKind::PermissionDenied,
                "password",
            ),
            ("NOAUTH Authentication required.", ErrorKind::PermissionDenied, "password"),
            (
                "NOPERM User some has no permissions to run the 'swapdb' command",
                ErrorKind::PermissionDenied,
                "right",
            ),
            (
                "DENIED Redis is running in protected mode",
                ErrorKind::PermissionDenied,
                "protected mode",
            ),
            (
                "READONLY You can't write against a read only replica.",
                ErrorKind::Unsupported,
                "primary",
            ),
            ("BUSYKEY Target key name already exists.", ErrorKind::AlreadyExists, "remove"),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Busy, "wait"),
            ("BUSY Redis is busy running a script.", ErrorKind::Busy, "wait"),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Changed, "moved slots"),
            ("ASK 3999 127.0.0.1:6381", ErrorKind::Changed, "moved slots"),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                ErrorKind::Changed,
                "at rest",
            ),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unreachable, "whole"),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::Unreachable, "whole"),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::Io, "log"),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                ErrorKind::Changed,
                "again",
            ),
            (
                "ERR DUMP payload version or checksum are wrong",
                ErrorKind::Incompatible,
                "newer server",
            ),
            ("ERR unknown command 'PEXPIRETIME'", ErrorKind::Unsupported, "7.0"),
            ("ERR unknown command 'JSON.SET', with args", ErrorKind::Unsupported, "RedisJSON"),
            ("ERR something else", ErrorKind::Io, "log"),
        ] {
            let (code, detail) = said.split_once(' ').unwrap();
            let error = refused("a command was refused", code, detail);
            assert_eq!(error.kind(), kind, "{said}");
            assert!(error.advice().contains(step), "{said}: {}", error.advice());
            assert!(error.report().contains(said), "{said}: {}", error.report());
        }
    }
}
