//! What nodes say to each other about whole states and parts of such; see `proto/sagitta/internal/v1/state.proto`.

use bytes::Bytes;
use sagitta_model::Violation;

use crate::failure::Failure;
use crate::internal as proto;

/// Longest name of a file.
const MAX_FILE_BYTES: usize = 200;
/// Most parts of an answer.
const MAX_PARTS: usize = 128;

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

/// Which group's parts are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskParts {
    /// The group, above 0.
    pub group: u64,
}

/// What a node says of the parts of a group's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedParts {
    /// Whether it leads the group.
    pub leads: bool,
    /// Whether it is making a part, or about to.
    pub working: bool,
    /// The parts, the newest last; at most 128.
    pub parts: Vec<ListedPart>,
}

/// A part of a group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// Its manifest as it travels, not yet looked at.
    pub manifest: Bytes,
    /// Its rows.
    pub rows: u64,
    /// Log index of the newest entry that it has something of.
    pub last: u64,
}

impl AskParts {
    /// Makes the message.
    pub fn into_proto(self) -> proto::PartsRequest {
        proto::PartsRequest { group: self.group }
    }

    /// Reads the message.
    pub fn from_proto(message: proto::PartsRequest) -> Result<Self, Failure> {
        match message.group {
            0 => Err(Failure::invalid(Violation::new("group", "is 0, which is no group"))),
            group => Ok(Self { group }),
        }
    }
}

impl ListedParts {
    /// Makes the message.
    pub fn into_proto(self) -> proto::PartsResponse {
        let part = |ListedPart { manifest, rows, last }| proto::Part { manifest, rows, last };
        let parts = self.parts.into_iter().map(part).collect();
        proto::PartsResponse { leads: self.leads, working: self.working, parts }
    }

    /// Reads the message.
    pub fn from_proto(message: proto::PartsResponse) -> Result<Self, Failure> {
        let proto::PartsResponse { leads, working, parts } = message;
        if parts.len() > MAX_PARTS {
            return Err(Failure::invalid(Violation::new("parts", "are more than 128")));
        }
        let part = |proto::Part { manifest, rows, last }| ListedPart { manifest, rows, last };
        Ok(Self { leads, working, parts: parts.into_iter().map(part).collect() })
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

    fn listed() -> ListedParts {
        let part = ListedPart { manifest: Bytes::from_static(b"{}"), rows: 300, last: 0x80 };
        ListedParts { leads: true, working: false, parts: vec![part] }
    }

    #[test]
    fn the_bytes_of_parts_stay_readable() {
        let ask = AskParts { group: 0x0102 };
        let bytes = [0x09, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(ask.into_proto().encode_to_vec(), bytes);
        assert_eq!(AskParts::from_proto(proto::PartsRequest::decode(&bytes[..]).unwrap()), Ok(ask));
        let part = [0x0a, 2, b'{', b'}', 0x10, 0xac, 2, 0x18, 0x80, 1];
        let bytes = [&[0x08, 1, 0x1a, 10][..], &part].concat();
        assert_eq!(listed().into_proto().encode_to_vec(), bytes);
        assert_eq!(ListedParts::from_proto(proto::PartsResponse::decode(&bytes[..]).unwrap()), Ok(listed()));
    }

    #[test]
    fn parts_that_cannot_be_are_refused_with_their_field() {
        let part = listed().into_proto().parts.remove(0);
        let of = |parts| proto::PartsResponse { parts: vec![part.clone(); parts], ..listed().into_proto() };
        assert_eq!(ListedParts::from_proto(of(MAX_PARTS + 1)).unwrap_err().violations[0].field, "parts");
        ListedParts::from_proto(of(MAX_PARTS)).unwrap();
        assert_eq!(AskParts::from_proto(proto::PartsRequest { group: 0 }).unwrap_err().violations[0].field, "group");
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
