//! The whole, from the outside.

mod schema;
