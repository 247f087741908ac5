//! What somebody may have meant.

/// A hint for an unknown `word`: the known one that it looks like, or all that are known.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    let likely = known
        .iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match likely {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
