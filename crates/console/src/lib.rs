//! What programs write for whoever ran them: tables and sizes for people, one JSON document for programs.
//!
//! May not know: any other crate of ours, or what is in the tables.

pub mod humane;
mod output;
pub mod table;

pub use output::{Format, Output, colour_errors, failure_document};
