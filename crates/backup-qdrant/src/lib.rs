//! Qdrant for backup-kit.

mod exact;
mod points;
mod schema;
