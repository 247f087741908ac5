//! Takes secrets out of a host's configuration.

use serde_json::Value;

const REMOVED: &str = "[removed]";

// Parts of names, in lower case and without separators.
const SECRET: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "credential",
    "privatekey",
    "accesskey",
    "authorization",
];

/// Replaces every secret by `[removed]`: what stands under a telling name, and user name,
/// password and telling parameters in URLs.
///
/// A name that ends in `_env` or `_file` says where a secret is, and stays; so does a number
/// under a name with `token` (`max_tokens`).
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if is_secret(name, member) {
                    *member = REMOVED.into();
                } else {
                    redact(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) => *text = redact_text(text),
        _ => {}
    }
}

fn is_secret(name: &str, value: &Value) -> bool {
    if matches!(value, Value::Null | Value::Bool(_)) {
        return false;
    }
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let found = SECRET.iter().find(|secret| name.contains(*secret));
    found.is_some_and(|secret| {
        let place = name.ends_with("env") || name.ends_with("file");
        let amount = *secret == "token" && value.is_number();
        !place && !amount
    })
}

// Removes `user:password@` after `://`, and values of telling `name=value` pairs: those of
// URLs and of connection strings.
fn redact_text(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = rest.split_at(at + 3);
        clean.push_str(scheme);
        rest = after;
        let authority = &rest[..rest.find(['/', '?', '#', ' ']).unwrap_or(rest.len())];
        if let Some(at) = authority.rfind('@') {
            clean.push_str(REMOVED);
            rest = &rest[at..];
        }
    }
    clean.push_str(rest);
    let pair = |piece: &str| match piece.split_once('=') {
        Some((name, value)) if is_secret(name, &Value::String(String::new())) => {
            let end = value.find(['?', '&', ';', '#', ' ']).unwrap_or(value.len());
            format!("{name}={REMOVED}{}", &value[end..])
        }
        _ => piece.to_owned(),
    };
    clean.split_inclusive(['?', '&', ';', '#', ' ']).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut config = json!({
            "name": "docs",
            "max_tokens": 4096,
            "api-key": "k",
            "apiKeyEnv": "QDRANT_KEY",
            "password_file": "/run/secrets/db",
            "use_token": true,
            "db": {"Password": 123, "PASSWD": null, "tokens": ["a", "b"], "private_key": {"n": 1}},
            "urls": [
                "redis://:pa,ss@localhost:6379/0",
                "http://localhost:6334",
                "neo4j://u:p@one,neo4j://u:p@two/db?token=abc&x=1",
                "host=db password=hidden port=1",
                "a=b==",
            ],
        });
        redact(&mut config);
        assert_eq!(
            config,
            json!({
                "name": "docs",
                "max_tokens": 4096,
                "api-key": "[removed]",
                "apiKeyEnv": "QDRANT_KEY",
                "password_file": "/run/secrets/db",
                "use_token": true,
                "db": {
                    "Password": "[removed]",
                    "PASSWD": null,
                    "tokens": "[removed]",
                    "private_key": "[removed]",
                },
                "urls": [
                    "redis://[removed]@localhost:6379/0",
                    "http://localhost:6334",
                    "neo4j://[removed]@one,neo4j://[removed]@two/db?token=[removed]&x=1",
                    "host=db password=[removed] port=1",
                    "a=b==",
                ],
            })
        );
    }
}
