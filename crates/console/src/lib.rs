//! What programs write for whoever ran them: tables and sizes for people, one JSON document for programs; and what people write for them.
//!
//! May not know: any other crate of ours, or what is in the tables.

mod duration;
pub mod humane;
mod output;
pub mod table;

pub use duration::duration;
pub use output::{Format, Output, colour_errors, failure_document};
