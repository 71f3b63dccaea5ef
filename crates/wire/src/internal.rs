//! The generated messages, client and server of `sagitta.internal.v1`. Their documentation is in the proto files.

generated!("/internal/sagitta.internal.v1.rs");
