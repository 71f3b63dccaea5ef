//! Checksums around tokens that callers carry.
//!
//! A token is a format version, a body, and a checksum over both. The checksum tells damage and tampering by
//! hand; it is no secret, and a token grants nothing that the request without it does not.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::TokenFault;

const CHECKSUM_BYTES: usize = size_of::<u64>();

/// What kind of token it is, so that none passes for another. Part of the format: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Page = 1,
    Version = 2,
}

/// Puts a body into a token: version, body, checksum.
pub(crate) fn seal(kind: TokenKind, version: u8, body: &[u8]) -> Vec<u8> {
    let mut token = Vec::with_capacity(1 + body.len() + CHECKSUM_BYTES);
    token.push(version);
    token.extend_from_slice(body);
    let checksum = checksum(kind, &token);
    token.extend_from_slice(&checksum.to_le_bytes());
    token
}

/// Takes the body out of a token that is intact and of the given version.
pub(crate) fn unseal(kind: TokenKind, version: u8, token: &[u8]) -> Result<&[u8], TokenFault> {
    let (content, stored) = token.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenFault::Damaged)?;
    if checksum(kind, content) != u64::from_le_bytes(*stored) {
        return Err(TokenFault::Damaged);
    }
    match content.split_first() {
        Some((&found, body)) if found == version => Ok(body),
        Some(_) => Err(TokenFault::Version),
        None => Err(TokenFault::Damaged),
    }
}

/// A stable hash of a request, to bind a token to it.
pub(crate) fn fingerprint(request: &[u8]) -> u64 {
    xxh3_64(request)
}

fn checksum(kind: TokenKind, content: &[u8]) -> u64 {
    xxh3_64_with_seed(content, kind as u64)
}
