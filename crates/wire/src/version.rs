//! Version tokens: where writes landed, as callers carry it.
//!
//! Body, version 1: per place the shard and the index as protobuf varints, shards ascending, each once.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};
use sagitta_model::VersionToken;

use crate::error::TokenFault;
use crate::seal::{TokenKind, seal, unseal};

const VERSION: u8 = 1;
/// Places in one token, and in one read: more shards than a collection has.
pub(crate) const MAX_PLACES: usize = 1_024;
const MAX_VARINT_BYTES: usize = 10;
const MAX_TOKEN_BYTES: usize = 1 + MAX_PLACES * 2 * MAX_VARINT_BYTES + 8;

/// The token that names all these places. No places are the empty token.
pub(crate) fn encode(places: Vec<VersionToken>) -> Bytes {
    if places.is_empty() {
        return Bytes::new();
    }
    let mut body = Vec::new();
    for place in newest(places) {
        encode_varint(place.shard, &mut body);
        encode_varint(place.index, &mut body);
    }
    seal(TokenKind::Version, VERSION, &body).into()
}

/// The places that a token names.
pub(crate) fn decode(token: &[u8]) -> Result<Vec<VersionToken>, TokenFault> {
    if token.is_empty() {
        return Ok(Vec::new());
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenFault::TooLong);
    }
    let mut body = unseal(TokenKind::Version, VERSION, token)?;
    let mut places: Vec<VersionToken> = Vec::new();
    while !body.is_empty() {
        let mut number = || decode_varint(&mut body).map_err(|_| TokenFault::Damaged);
        let place = VersionToken { shard: number()?, index: number()? };
        if places.last().is_some_and(|last| last.shard >= place.shard) {
            return Err(TokenFault::Damaged);
        }
        if places.len() == MAX_PLACES {
            return Err(TokenFault::TooLong);
        }
        places.push(place);
    }
    Ok(places)
}

/// The newest place of each shard, ascending by shard.
pub(crate) fn newest(mut places: Vec<VersionToken>) -> Vec<VersionToken> {
    places.sort_unstable_by_key(|place| (place.shard, std::cmp::Reverse(place.index)));
    places.dedup_by_key(|place| place.shard);
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(shard: u64, index: u64) -> VersionToken {
        VersionToken { shard, index }
    }

    #[test]
    fn a_token_names_the_newest_place_of_each_shard() {
        let token = encode(vec![at(7, 3), at(1, 300), at(7, 9), at(u64::MAX, u64::MAX)]);
        assert_eq!(decode(&token), Ok(vec![at(1, 300), at(7, 9), at(u64::MAX, u64::MAX)]));
        assert_eq!(decode(&encode(Vec::new())), Ok(Vec::new()));
    }

    #[test]
    fn version_1_keeps_its_bytes() {
        let token = encode(vec![at(1, 300), at(7, 9)]);
        assert_eq!(&token[..], [1, 1, 172, 2, 7, 9, 221, 72, 127, 131, 167, 142, 98, 213]);
    }

    #[test]
    fn a_token_that_was_not_made_here_is_refused() {
        let good = encode(vec![at(1, 300), at(7, 9)]);
        for cut in 1..good.len() {
            assert_eq!(decode(&good[..cut]), Err(TokenFault::Damaged), "cut to {cut} bytes");
        }
        for bit in 0..good.len() * 8 {
            let mut changed = good.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&changed), Err(TokenFault::Damaged), "bit {bit}");
        }
        let descending = seal(TokenKind::Version, VERSION, &[7, 9, 1, 1]);
        assert_eq!(decode(&descending), Err(TokenFault::Damaged));
        assert_eq!(decode(&seal(TokenKind::Version, VERSION, &[7])), Err(TokenFault::Damaged));
        assert_eq!(decode(&seal(TokenKind::Version, 2, &[7, 9])), Err(TokenFault::Version));
        assert_eq!(decode(&seal(TokenKind::Page, VERSION, &[7, 9])), Err(TokenFault::Damaged));
        assert_eq!(decode(&vec![0; MAX_TOKEN_BYTES + 1]), Err(TokenFault::TooLong));
        let many: Vec<u8> = (1..=MAX_PLACES as u64 + 1)
            .flat_map(|shard| {
                let mut place = Vec::new();
                encode_varint(shard, &mut place);
                encode_varint(1, &mut place);
                place
            })
            .collect();
        assert_eq!(decode(&seal(TokenKind::Version, VERSION, &many)), Err(TokenFault::TooLong));
    }
}
