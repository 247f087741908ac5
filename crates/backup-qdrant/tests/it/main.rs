//! The adapter against real engines.
