//! Redis for backup-kit: every type, every expiry.
//!
//! | room | what |
//! |---|---|
//! | `model` | what a key becomes: items and their records |
//! | `naming`, `records` | which collection a key belongs to; items into batches |
//! | `options`, `client`, `error` | how a server is reached |

#![cfg_attr(docsrs, feature(doc_cfg))]

#[allow(dead_code)]
mod model;
#[allow(dead_code)]
mod naming;
#[allow(dead_code)]
mod records;

/// What the manifest calls a store of Redis.
pub(crate) const KIND: &str = "redis";
