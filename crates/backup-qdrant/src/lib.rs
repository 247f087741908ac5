//! Qdrant for backup-kit.
