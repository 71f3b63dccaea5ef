//! Generates the code of the API from `proto/`, without `protoc`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;

/// The public API.
const PUBLIC: [&str; 5] = [
    "sagitta/v1/common.proto",
    "sagitta/v1/cluster.proto",
    "sagitta/v1/collections.proto",
    "sagitta/v1/points.proto",
    "sagitta/v1/search.proto",
];
/// Between nodes. Compiled apart, so that its descriptors stay out of the public reflection.
const INTERNAL: [&str; 3] =
    ["sagitta/internal/v1/raft.proto", "sagitta/internal/v1/shard.proto", "sagitta/internal/v1/control.proto"];
// Relative to this package, where cargo runs us: an absolute path would make clones that share a target folder read
// each other's files.
const ROOT: &str = "../../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("sagitta.v1.descriptors"), generate(&PUBLIC, &[], &out)?)?;
    // What it imports of the public API is generated once, above; the second time goes to a folder that nobody reads.
    let internal = out.join("internal");
    fs::create_dir_all(&internal)?;
    generate(&INTERNAL, &[(".sagitta.v1", "crate::v1")], &internal)?;
    Ok(())
}

/// Generates the code of some files, with what is generated `elsewhere` named by its path; returns their descriptors, encoded.
fn generate(files: &[&str], elsewhere: &[(&str, &str)], out: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // With comments: they are the API's documentation, and reflection shows them.
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let descriptors = compiler.file_descriptor_set();
    let encoded = descriptors.encode_to_vec();
    let mut builder = tonic_prost_build::configure();
    for (package, path) in elsewhere {
        builder = builder.extern_path(*package, *path);
    }
    builder
        // Packed vectors are slices of the received message, not copies.
        .bytes(".")
        // Ordered maps encode the same way every time, which golden bytes and page tokens rely on.
        .btree_map(".")
        // A hit without its record stays small.
        .boxed(".sagitta.internal.v1.ShardHit.record")
        .codec_path("crate::codec::Codec")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(encoded)
}
