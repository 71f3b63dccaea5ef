//! The generated messages, clients and servers of `sagitta.v1`. Their documentation is in the proto files.

generated!("/sagitta.v1.rs");

/// The descriptors of the API and of what it imports, comments included, as an encoded
/// `google.protobuf.FileDescriptorSet`; for gRPC reflection and for whoever checks a rule on every RPC.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sagitta.v1.descriptors"));
