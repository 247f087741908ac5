//! Tests of backup-neo4j.
