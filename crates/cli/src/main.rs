//! The binary `sagitta`.

fn main() {}
