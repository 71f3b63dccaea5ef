//! Paging: which part of a list a request asks for, and the token that asks for the next.
//!
//! Body of a page token, version 1: the kind of list (one byte), the fingerprint of the request (8 bytes,
//! little-endian), the place after which the page begins. The text form is base64 for URLs without padding.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use sagitta_model::{CollectionName, PointId, limits};

use crate::common::widen;
use crate::error::{TokenFault, WireError};
use crate::seal::{TokenKind, fingerprint, seal, unseal};

/// Entries on a page when the request does not say.
pub const DEFAULT_PAGE: usize = 100;

const VERSION: u8 = 1;
/// Longer than any token: a collection's name, base64, and what is around it.
const MAX_TOKEN_BYTES: usize = 256;
const FINGERPRINT_BYTES: usize = size_of::<u64>();

/// The part of a list that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<P> {
    /// The most entries to return, 1 to [`limits::MAX_PAGE`].
    pub size: usize,
    /// The page begins after this place; `None` at the beginning of the list.
    pub after: Option<P>,
    fingerprint: u64,
}

/// A place in a list that pages may begin after.
pub trait Place: Sized {
    #[doc(hidden)]
    const KIND: u8;
    #[doc(hidden)]
    fn to_bytes(&self) -> Vec<u8>;
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Place for PointId {
    const KIND: u8 = 1;

    fn to_bytes(&self) -> Vec<u8> {
        self.to_key().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_key(bytes)
    }
}

impl Place for CollectionName {
    const KIND: u8 = 2;

    fn to_bytes(&self) -> Vec<u8> {
        self.as_str().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// A thing in a list in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ById<const KIND: u8>(pub u64);

/// A node in a list.
pub type NodePlace = ById<3>;
/// A shard in a list.
pub type ShardPlace = ById<4>;
/// An operation in a list.
pub type OperationPlace = ById<5>;

impl<const LIST: u8> Place for ById<LIST> {
    const KIND: u8 = LIST;

    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u64::from_le_bytes).map(Self)
    }
}

impl<P: Place> Page<P> {
    /// Reads `page_size` and `page_token`. `request` is what the token is bound to: the request without these
    /// two and whatever else may change from page to page.
    pub(crate) fn new(size: u32, token: &str, request: &impl Message) -> Result<Self, WireError> {
        let size = match widen(size) {
            0 => DEFAULT_PAGE,
            size => size.min(limits::MAX_PAGE),
        };
        let fingerprint = fingerprint(&request.encode_to_vec());
        let after = if token.is_empty() { None } else { Some(read(token, fingerprint).map_err(WireError::PageToken)?) };
        Ok(Self { size, after, fingerprint })
    }

    /// The token of the page that begins after `place`, the last entry of this one.
    pub fn next_token(&self, place: &P) -> String {
        let mut body = vec![P::KIND];
        body.extend_from_slice(&self.fingerprint.to_le_bytes());
        body.extend_from_slice(&place.to_bytes());
        URL_SAFE_NO_PAD.encode(seal(TokenKind::Page, VERSION, &body))
    }
}

fn read<P: Place>(token: &str, fingerprint: u64) -> Result<P, TokenFault> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenFault::Damaged);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenFault::Damaged)?;
    let body = unseal(TokenKind::Page, VERSION, &bytes)?;
    let (&kind, rest) = body.split_first().ok_or(TokenFault::Damaged)?;
    let (bound, place) = rest.split_first_chunk::<FINGERPRINT_BYTES>().ok_or(TokenFault::Damaged)?;
    if kind != P::KIND || u64::from_le_bytes(*bound) != fingerprint {
        return Err(TokenFault::Foreign);
    }
    P::from_bytes(place).ok_or(TokenFault::Damaged)
}

#[cfg(test)]
mod tests;
