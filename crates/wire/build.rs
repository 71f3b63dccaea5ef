//! Generates the code of the API from `proto/`, without `protoc`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

/// The public API.
const PUBLIC: [&str; 4] =
    ["sagitta/v1/common.proto", "sagitta/v1/collections.proto", "sagitta/v1/points.proto", "sagitta/v1/search.proto"];
/// Between nodes. Compiled apart, so that its descriptors stay out of the public reflection.
const INTERNAL: [&str; 2] = ["sagitta/internal/v1/raft.proto", "sagitta/internal/v1/state.proto"];
// Relative to this package, where cargo runs us: an absolute path would make clones that share a target folder read
// each other's files.
const ROOT: &str = "../../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("sagitta.v1.descriptors"), generate(&PUBLIC, &out)?)?;
    generate(&INTERNAL, &out)?;
    Ok(())
}

/// Generates the code of some files and returns their descriptors, encoded.
fn generate(files: &[&str], out: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // With comments: they are the API's documentation, and reflection shows them.
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();
    let encoded = descriptors.encode_to_vec();
    tonic_prost_build::configure()
        // Packed vectors are slices of the received message, not copies.
        .bytes(".")
        // Ordered maps encode the same way every time, which golden bytes and page tokens rely on.
        .btree_map(".")
        .codec_path("crate::codec::Codec")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(encoded)
}
