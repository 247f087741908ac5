//! A Qdrant server for tests: real engine shards behind gRPC and REST.
