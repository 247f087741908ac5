//! What counts as a duplicate.

use serde::{Deserialize, Serialize};

/// What counts as a duplicate; by default equal values only.
///
/// `docs/DUPLICATES.md` has the measurements behind the defaults.
///
/// ```
/// use backup_core::DuplicateOptions;
///
/// let options = DuplicateOptions::default()
///     .ignore("/id")
///     .fuzzy(DuplicateOptions::SIMILARITY)
///     .semantic("text", DuplicateOptions::COSINE);
/// assert!(options.exact);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DuplicateOptions {
    /// Whether records with the same value are duplicates.
    pub exact: bool,
    /// Members of a value that do not count, as JSON pointers; the mapped times never count.
    pub ignore: Vec<String>,
    /// The similarity of two texts, 0 to 1, from which on they are duplicates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuzzy: Option<f64>,
    /// Which vectors are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticOptions>,
    /// Bytes of memory after which the search ends with an error.
    pub memory: usize,
}

/// Which vectors are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct SemanticOptions {
    /// Name of the vector.
    pub vector: String,
    /// The cosine from which on two records are duplicates.
    pub threshold: f64,
}

impl Default for DuplicateOptions {
    fn default() -> Self {
        Self { exact: true, ignore: Vec::new(), fuzzy: None, semantic: None, memory: 1 << 30 }
    }
}

impl DuplicateOptions {
    /// A similarity of texts that tells copies from neighbours.
    pub const SIMILARITY: f64 = 0.95;
    /// A cosine of sentence embeddings that tells copies from neighbours.
    pub const COSINE: f64 = 0.99;

    /// Leaves a member out of the comparison of values.
    #[must_use]
    pub fn ignore(mut self, pointer: impl Into<String>) -> Self {
        self.ignore.push(pointer.into());
        self
    }

    /// Looks for texts that are alike, too.
    #[must_use]
    pub fn fuzzy(mut self, similarity: f64) -> Self {
        self.fuzzy = Some(similarity);
        self
    }

    /// Looks for vectors that are alike, too.
    #[must_use]
    pub fn semantic(mut self, vector: impl Into<String>, cosine: f64) -> Self {
        self.semantic = Some(SemanticOptions { vector: vector.into(), threshold: cosine });
        self
    }

    /// Ends the search with an error where it would take more memory than this.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}
