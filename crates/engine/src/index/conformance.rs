//! The conformance suite of the vector index port.
