//! Which module a virtual table uses, and with what arguments.

use super::document::Fill;

/// The module and its arguments, from the statement that made a virtual table.
pub(crate) fn parse(sql: &str) -> Option<(String, Vec<String>)> {
    let mut rest = sql;
    for word in ["CREATE", "VIRTUAL", "TABLE"] {
        let (token, after) = token(rest)?;
        rest = token.eq_ignore_ascii_case(word).then_some(after)?;
    }
    let (_name, after) = token(rest)?;
    let (using, after) = token(after)?;
    let (module, after) = using.eq_ignore_ascii_case("USING").then(|| token(after))??;
    let arguments = match token(after) {
        Some(("(", arguments)) => split(arguments),
        _ => Vec::new(),
    };
    Some((unquote(module).to_lowercase(), arguments))
}

/// How a virtual table is filled at restore; `None` where it cannot be restored at all.
pub(crate) fn fill(module: &str, arguments: &[String]) -> Option<Fill> {
    match module {
        "fts5" => Some(text_fill(arguments.iter().filter_map(|a| option(a)).find(|(key, _)| {
            // FTS5 takes any beginning of an option's name; this is the first that fits.
            !key.is_empty() && "content".starts_with(key.as_str())
        }))),
        "fts3" | "fts4" => Some(text_fill(
            arguments.iter().filter_map(|a| option(a)).find(|(key, _)| key == "content"),
        )),
        "fts5vocab" | "fts4aux" => Some(Fill::Nothing),
        "rtree" | "rtree_i32" | "geopoly" => Some(Fill::Records),
        _ => None,
    }
}

fn text_fill(content: Option<(String, String)>) -> Fill {
    match content {
        None => Fill::Records,
        Some((_, table)) if table.is_empty() => Fill::Lost,
        Some(_) => Fill::Rebuild,
    }
}

/// The table or view that a full-text index reads, if its rows are found by row id.
pub(crate) fn content_table(arguments: &[String]) -> Option<String> {
    let mut options = arguments.iter().filter_map(|a| option(a));
    options
        .find(|(key, _)| key.starts_with('c') && "content".starts_with(key.as_str()))
        .map(|(_, v)| v)
}

// `key = value` of an argument.
fn option(argument: &str) -> Option<(String, String)> {
    let (key, value) = argument.split_once('=')?;
    let key = key.trim();
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then(|| (key.to_ascii_lowercase(), unquote(value.trim())))
}

// The first token, white space and comments before it skipped, and what follows.
fn token(text: &str) -> Option<(&str, &str)> {
    let mut text = text.trim_start();
    loop {
        let after = if let Some(comment) = text.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else {
            break;
        };
        text = after.trim_start();
    }
    let len = match text.chars().next()? {
        open @ ('"' | '\'' | '`' | '[') => quoted(text, open),
        first if word(first) => text.find(|c| !word(c)).unwrap_or(text.len()),
        other => other.len_utf8(),
    };
    Some(text.split_at(len))
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

// Length of a quoted token; a doubled quote does not end it.
fn quoted(text: &str, open: char) -> usize {
    let close = if open == '[' { ']' } else { open };
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == close {
            let doubled = close != ']' && chars.peek().is_some_and(|(_, next)| *next == close);
            if !doubled {
                return at + close.len_utf8();
            }
            chars.next();
        }
    }
    text.len()
}

// The arguments up to the closing bracket, split at commas that stand in no brackets or
// quotes.
fn split(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some((token, after)) = token(rest) {
        let gap = &rest[..rest.len() - after.len() - token.len()];
        rest = after;
        let current = arguments.last_mut().expect("never empty");
        match token {
            "," if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            ")" if depth == 0 => break,
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if gap.contains(char::is_whitespace) && !current.is_empty() {
            current.push(' ');
        }
        current.push_str(token);
    }
    arguments
}

fn unquote(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next_back()) {
        (Some('['), Some(']')) => chars.as_str().to_owned(),
        (Some(open @ ('"' | '\'' | '`')), Some(close)) if open == close => {
            chars.as_str().replace(&format!("{open}{open}"), &open.to_string())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> (String, Option<Fill>) {
        let (module, arguments) = parse(sql).unwrap();
        let fill = fill(&module, &arguments);
        (module, fill)
    }

    #[test]
    fn the_content_of_a_full_text_index_is_told_from_its_arguments() {
        for (sql, expected) in [
            ("CREATE VIRTUAL TABLE t USING fts5(a, b)", Fill::Records),
            (
                "CREATE VIRTUAL TABLE t USING fts5(a, content='docs', content_rowid='id')",
                Fill::Rebuild,
            ),
            (
                "CREATE VIRTUAL TABLE \"a\"\"b USING x(\" USING FTS5 ( a , Content = \"d,(\" )",
                Fill::Rebuild,
            ),
            ("CREATE VIRTUAL TABLE t USING fts5(a, c='')", Fill::Lost),
            ("CREATE VIRTUAL TABLE t /* x, */ USING fts5(a, content=\"\")", Fill::Lost),
            ("CREATE VIRTUAL TABLE t USING fts5(a, tokenize='porter content=x')", Fill::Records),
            ("CREATE VIRTUAL TABLE t USING fts5(content, prefix='2 3')", Fill::Records),
            ("CREATE VIRTUAL TABLE t USING fts4(content=\"d\", a)", Fill::Rebuild),
            ("CREATE VIRTUAL TABLE t USING rtree(id, x0, x1, +note TEXT)", Fill::Records),
        ] {
            assert_eq!(of(sql).1, Some(expected), "{sql}");
        }
        assert_eq!(of("CREATE VIRTUAL TABLE t USING vec0(e float[3])").1, None);
        assert_eq!(
            of("CREATE VIRTUAL TABLE t USING [fts5vocab]('x','row')").1,
            Some(Fill::Nothing)
        );
    }

    #[test]
    fn the_table_behind_an_index_is_found_under_its_real_name() {
        let (_, arguments) =
            parse("CREATE VIRTUAL TABLE t USING fts5(a, content='it''s \"a\"')").unwrap();
        assert_eq!(content_table(&arguments).as_deref(), Some("it's \"a\""));
    }
}
