//! What nodes say to each other about whole states; see `proto/sagitta/internal/v1/state.proto`.

use bytes::Bytes;
use sagitta_model::Violation;

use crate::failure::Failure;
use crate::internal as proto;

/// Longest name of a file.
const MAX_FILE_BYTES: usize = 200;

/// Which part of which file of a state is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchState {
    /// The group, above 0.
    pub group: u64,
    /// The number of the offer.
    pub offer: u128,
    /// The file's name in the manifest.
    pub file: String,
    /// Where to begin.
    pub offset: u64,
}

impl FetchState {
    /// Makes the message.
    pub fn into_proto(self) -> proto::FetchRequest {
        let Self { group, offer, file, offset } = self;
        proto::FetchRequest { group, offer: Bytes::copy_from_slice(&offer.to_be_bytes()), file, offset }
    }

    /// Reads the message.
    pub fn from_proto(message: proto::FetchRequest) -> Result<Self, Failure> {
        let invalid = |field, what: &str| Failure::invalid(Violation::new(field, what));
        let proto::FetchRequest { group, offer, file, offset } = message;
        if group == 0 {
            return Err(invalid("group", "is 0, which is no group"));
        }
        if file.len() > MAX_FILE_BYTES {
            return Err(invalid("file", "has more than 200 bytes"));
        }
        let offer = offer[..].try_into().map_err(|_| invalid("offer", "is not a number of 16 bytes"))?;
        Ok(Self { group, offer: u128::from_be_bytes(offer), file, offset })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn sample() -> FetchState {
        FetchState { group: 0x0102, offer: 0xab, file: "db/1.sst".to_owned(), offset: 300 }
    }

    #[test]
    fn the_bytes_of_a_request_stay_readable() {
        let bytes = [
            &[0x09, 2, 1, 0, 0, 0, 0, 0, 0][..],
            &[0x12, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab],
            &[0x1a, 8],
            b"db/1.sst",
            &[0x20, 0xac, 2],
        ]
        .concat();
        assert_eq!(sample().into_proto().encode_to_vec(), bytes);
        let decoded = proto::FetchRequest::decode(&bytes[..]).unwrap();
        assert_eq!(FetchState::from_proto(decoded), Ok(sample()));
    }

    #[test]
    fn a_request_that_names_nothing_is_refused_with_its_field() {
        let full = || sample().into_proto();
        let cases = [
            ("group", proto::FetchRequest { group: 0, ..full() }),
            ("offer", proto::FetchRequest { offer: Bytes::from_static(&[1; 15]), ..full() }),
            ("file", proto::FetchRequest { file: "x".repeat(MAX_FILE_BYTES + 1), ..full() }),
        ];
        for (field, request) in cases {
            assert_eq!(FetchState::from_proto(request).unwrap_err().violations[0].field, field);
        }
    }
}
