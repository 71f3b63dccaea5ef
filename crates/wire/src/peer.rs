//! How nodes introduce themselves to each other; see `proto/sagitta/internal/v1/raft.proto`.

use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;
use sagitta_model::{ErrorKind, Violation};
use tonic::metadata::{Binary, MetadataMap, MetadataValue};

use crate::common::{Convert, node, required, uuid, uuid_bytes};
use crate::failure::{Failure, reason};
use crate::internal as proto;

/// The version of the protocol between nodes that this build speaks.
pub const PROTOCOL: u32 = 1;

/// The metadata that carries a [`Hello`].
pub const HELLO_METADATA: &str = "sagitta-hello-bin";

/// Why a node refuses another one, for programs.
pub mod refusal {
    /// The sender belongs to another cluster.
    pub const OTHER_CLUSTER: &str = "OTHER_CLUSTER";
    /// The sender means another node.
    pub const OTHER_NODE: &str = "OTHER_NODE";
    /// The sender takes itself for the receiver.
    pub const OWN_MESSAGE: &str = "OWN_MESSAGE";
    /// The sender speaks a protocol that the receiver does not.
    pub const OTHER_PROTOCOL: &str = "OTHER_PROTOCOL";
    /// Another data folder is connected under the sender's node id.
    pub const OTHER_INCARNATION: &str = "OTHER_INCARNATION";
    /// Another run of the sender's data folder is connected, or came after this one.
    pub const OTHER_RUN: &str = "OTHER_RUN";
    /// The sender was removed from the cluster for ever.
    pub const REMOVED: &str = "NODE_REMOVED";
}

/// Who calls, and whom it means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol that the sender speaks.
    pub protocol: u32,
    /// UUID of the sender's cluster.
    pub cluster: u128,
    /// The sender's node id, above 0.
    pub sender: u64,
    /// UUID of the sender's data folder.
    pub incarnation: u128,
    /// The node id that the sender means to reach, above 0.
    pub receiver: u64,
    /// Which run of its data folder the sender is.
    pub run: Run,
}

/// One start of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How often the folder was started, this time included.
    pub number: u64,
    /// Random: tells the runs of two copies apart that were started as often.
    pub id: u128,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
}

/// Who has let the caller in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The receiver's node id.
    pub receiver: u64,
    /// UUID of the receiver's data folder.
    pub incarnation: u128,
}

impl Hello {
    /// Puts it into the metadata of a call.
    pub fn write_to(&self, metadata: &mut MetadataMap) {
        metadata.insert_bin(HELLO_METADATA, self.to_metadata());
    }

    /// As a value of [`HELLO_METADATA`]: for whoever makes many calls, once.
    pub fn to_metadata(&self) -> MetadataValue<Binary> {
        MetadataValue::from_bytes(&self.encode())
    }

    /// Reads it from the metadata of a call. Whether its protocol is spoken here is left to the receiver.
    pub fn read_from(metadata: &MetadataMap) -> Result<Self, Failure> {
        let invalid = |what: &str| Failure::invalid(Violation::new(HELLO_METADATA, what));
        let value = metadata.get_bin(HELLO_METADATA).ok_or_else(|| invalid("is missing: only nodes call this"))?;
        let bytes = value.to_bytes().map_err(|_| invalid("is not base64"))?;
        Self::decode(bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let hello = proto::Hello {
            protocol: self.protocol,
            cluster: uuid_bytes(self.cluster),
            sender: self.sender,
            sender_incarnation: uuid_bytes(self.incarnation),
            receiver: self.receiver,
            run: Some(self.run.into_proto()),
        };
        hello.encode_to_vec()
    }

    fn decode(bytes: Bytes) -> Result<Self, Failure> {
        let hello = proto::Hello::decode(bytes).map_err(|error| {
            let message = format!("{HELLO_METADATA} cannot be decoded: {error}");
            Failure::new(ErrorKind::Invalid, message).with_reason(reason::MALFORMED_MESSAGE)
        })?;
        let read = || {
            Ok(Self {
                protocol: hello.protocol,
                cluster: uuid("cluster", &hello.cluster)?,
                sender: node("sender", hello.sender)?,
                incarnation: uuid("sender_incarnation", &hello.sender_incarnation)?,
                receiver: node("receiver", hello.receiver)?,
                run: Run::from_proto(required("run", hello.run)?).map_err(|violation| violation.within("run"))?,
            })
        };
        read().map_err(|violation: Violation| Failure::invalid(violation.within(HELLO_METADATA)))
    }
}

impl Convert for Run {
    type Proto = proto::Run;
    type Error = Violation;

    fn from_proto(proto: proto::Run) -> Result<Self, Violation> {
        let wrong = |field: &str, what: &str| Violation::new(field, what);
        Ok(Self {
            number: Some(proto.number).filter(|number| *number > 0).ok_or_else(|| wrong("number", "is 0"))?,
            id: uuid("id", &proto.id)?,
            address: proto.address.parse().map_err(|_| wrong("address", "is no address such as `10.0.0.7:6381`"))?,
        })
    }

    fn into_proto(self) -> proto::Run {
        proto::Run { number: self.number, id: uuid_bytes(self.id), address: self.address.to_string() }
    }
}

impl Welcome {
    /// Makes the message.
    pub fn into_proto(self) -> proto::DeliverResponse {
        let receiver_incarnation = uuid_bytes(self.incarnation);
        proto::DeliverResponse { receiver: self.receiver, receiver_incarnation }
    }

    /// Reads the message.
    pub fn from_proto(message: &proto::DeliverResponse) -> Result<Self, Failure> {
        let incarnation = uuid("receiver_incarnation", &message.receiver_incarnation);
        let receiver = node("receiver", message.receiver).map_err(Failure::invalid)?;
        Ok(Self { receiver, incarnation: incarnation.map_err(Failure::invalid)? })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    const HELLO: Hello = Hello {
        protocol: 1,
        cluster: 0xc1,
        sender: 0x0102_0304_0506_0708,
        incarnation: 0xa1 << 120,
        receiver: 2,
        run: Run { number: 3, id: 0xd1, address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6381) },
    };

    #[test]
    fn the_bytes_of_a_hello_and_of_a_welcome_stay_readable() {
        let hello = [
            &[0x08, 1][..],
            &[0x12, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1],
            &[0x19, 8, 7, 6, 5, 4, 3, 2, 1],
            &[0x22, 16, 0xa1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x29, 2, 0, 0, 0, 0, 0, 0, 0],
            &[0x32, 36, 0x08, 3, 0x12, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd1, 0x1a, 14],
            b"127.0.0.1:6381",
        ]
        .concat();
        assert_eq!(HELLO.encode(), hello);
        assert_eq!(Hello::decode(hello.into()), Ok(HELLO));
        let welcome = Welcome { receiver: 2, incarnation: 0xb2 };
        let bytes = [&[0x09, 2, 0, 0, 0, 0, 0, 0, 0][..], &[0x12, 16], &0xb2_u128.to_be_bytes()].concat();
        assert_eq!(welcome.into_proto().encode_to_vec(), bytes);
        let decoded = proto::DeliverResponse::decode(&bytes[..]).unwrap();
        assert_eq!(Welcome::from_proto(&decoded), Ok(welcome));
    }

    #[test]
    fn a_hello_travels_in_metadata_and_is_missed_where_there_is_none() {
        let mut metadata = MetadataMap::new();
        let missing = Hello::read_from(&metadata).unwrap_err();
        assert!(missing.kind == ErrorKind::Invalid && missing.message.contains(HELLO_METADATA), "{missing:?}");
        HELLO.write_to(&mut metadata);
        assert_eq!(Hello::read_from(&metadata), Ok(HELLO));
    }

    #[test]
    fn a_hello_with_an_id_that_is_none_is_refused_with_the_fields_name() {
        let full = || proto::Hello::decode(&HELLO.encode()[..]).unwrap();
        let run = || HELLO.run.into_proto();
        let short = Bytes::from_static(&[1; 15]);
        let cases = [
            ("cluster", proto::Hello { cluster: short.clone(), ..full() }),
            ("sender_incarnation", proto::Hello { sender_incarnation: short, ..full() }),
            ("sender", proto::Hello { sender: 0, ..full() }),
            ("receiver", proto::Hello { receiver: 0, ..full() }),
            ("run", proto::Hello { run: None, ..full() }),
            ("run.number", proto::Hello { run: Some(proto::Run { number: 0, ..run() }), ..full() }),
            ("run.id", proto::Hello { run: Some(proto::Run { id: Bytes::new(), ..run() }), ..full() }),
            ("run.address", proto::Hello { run: Some(proto::Run { address: "n1".to_owned(), ..run() }), ..full() }),
        ];
        for (field, hello) in cases {
            let failure = Hello::decode(hello.encode_to_vec().into()).unwrap_err();
            assert_eq!(failure.violations[0].field, format!("{HELLO_METADATA}.{field}"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(hello) = Hello::decode(bytes.into()) {
                prop_assert_eq!(Hello::decode(hello.encode().into()), Ok(hello));
            }
        }
    }
}
