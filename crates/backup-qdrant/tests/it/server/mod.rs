//! The adapter for servers, against a real server where `QDRANT_URL` names one, else against
//! the test server, which has the real engine.

mod conform;
mod crash;
mod faults;
mod filter;
mod fixture;
mod keys;
mod merge;
mod native;
mod peers;
mod rich;
mod tls;
mod vectors;
