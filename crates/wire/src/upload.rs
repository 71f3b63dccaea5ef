//! The messages of the bulk upload, `PointService.UpsertStream`.

use prost::Message as _;
use sagitta_model::{CollectionName, Point, Problem, Schema, Violation, Wait, WriteResult, limits};

use crate::common::{Convert, RequestId, collection_name, required};
use crate::error::WireError;
use crate::points::{points_from, resolve_points, wait_from, wait_into};
use crate::v1;

/// What the caller sends.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadRequest {
    /// First.
    Open(Open),
    /// Then.
    Chunk(Chunk),
}

/// Opens an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Into which collection.
    pub collection: CollectionName,
    /// What each acknowledgement waits for.
    pub wait: Wait,
}

/// Some points of an upload, as they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Its number: one more than that of the chunk before.
    pub sequence: u64,
    /// Bytes of credit that it uses up.
    pub bytes: u64,
    /// Points of credit that it uses up.
    pub points: u64,
    /// What to write; an error concerns this chunk alone and not the stream.
    pub write: Result<ChunkWrite, WireError>,
}

/// What a chunk writes.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkWrite {
    /// Identity of the chunk over its retries.
    pub request_id: Option<RequestId>,
    /// The points; no id occurs twice.
    pub points: Vec<Point>,
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadAnswer {
    /// How much more may be sent.
    pub credit: Credit,
    /// The fate of a chunk.
    pub ack: Option<Ack>,
}

/// How much may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Points.
    pub points: u64,
    /// Bytes of encoded chunks.
    pub bytes: u64,
}

/// The fate of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// The chunk's number.
    pub sequence: u64,
    /// What was written, or why nothing was.
    pub outcome: Result<WriteResult, Problem>,
}

/// The least that the first answer of a stream grants: a full batch of points, and as many bytes as the largest
/// valid point may take.
pub const MIN_WINDOW: Credit = Credit { points: limits::MAX_BATCH_POINTS as u64, bytes: 4 << 20 };

impl Credit {
    /// What is left after this use, or `None` if it is not enough.
    #[must_use]
    pub fn less(self, used: Self) -> Option<Self> {
        Some(Self { points: self.points.checked_sub(used.points)?, bytes: self.bytes.checked_sub(used.bytes)? })
    }

    /// What there is after a grant.
    #[must_use]
    pub fn plus(self, granted: Self) -> Self {
        Self { points: self.points.saturating_add(granted.points), bytes: self.bytes.saturating_add(granted.bytes) }
    }
}

impl Chunk {
    /// The credit that it uses up.
    pub fn cost(&self) -> Credit {
        Credit { points: self.points, bytes: self.bytes }
    }
}

/// The message that sends a chunk.
pub fn chunk_message(chunk: v1::UpsertChunk) -> v1::UpsertStreamRequest {
    v1::UpsertStreamRequest { message: Some(v1::upsert_stream_request::Message::Chunk(chunk)) }
}

impl ChunkWrite {
    /// Names unnamed vectors and checks every point against the schema.
    pub fn resolve(&mut self, schema: &Schema) -> Result<(), Violation> {
        resolve_points(&mut self.points, schema).map_err(|violation| violation.within("chunk"))
    }

    /// The message that sends it.
    pub fn into_chunk(self, sequence: u64) -> v1::UpsertChunk {
        v1::UpsertChunk {
            sequence,
            request_id: RequestId::optional_text(self.request_id),
            points: self.points.into_iter().map(Convert::into_proto).collect(),
        }
    }
}

/// The credit that a chunk uses up.
pub fn cost(chunk: &v1::UpsertChunk) -> Credit {
    Credit { points: chunk.points.len() as u64, bytes: chunk.encoded_len() as u64 }
}

/// Bytes that a point adds to the chunk that it is in.
pub fn point_bytes(point: &v1::Point) -> u64 {
    const POINTS: u32 = 3;
    prost::encoding::message::encoded_len(POINTS, point) as u64
}

/// Bytes that a chunk may take besides its points: its sequence and its request id.
pub const CHUNK_OVERHEAD_BYTES: u64 = 64;

impl UploadRequest {
    /// Reads the message. An error concerns the whole stream.
    pub fn from_proto(proto: v1::UpsertStreamRequest) -> Result<Self, WireError> {
        use v1::upsert_stream_request::Message;
        match required("message", proto.message)? {
            Message::Open(open) => {
                let read = || Ok(Open { collection: collection_name(&open.collection)?, wait: wait_from(open.wait)? });
                Ok(Self::Open(read().map_err(|violation: Violation| violation.within("open"))?))
            }
            Message::Chunk(chunk) => {
                let Credit { points, bytes } = cost(&chunk);
                let sequence = chunk.sequence;
                let write = || {
                    let request_id = RequestId::optional(&chunk.request_id)?;
                    Ok(ChunkWrite { request_id, points: points_from(chunk.points)? })
                };
                let write = write().map_err(|violation: Violation| violation.within("chunk").into());
                Ok(Self::Chunk(Chunk { sequence, bytes, points, write }))
            }
        }
    }
}

impl Open {
    /// The message that opens the stream.
    pub fn into_proto(self) -> v1::UpsertStreamRequest {
        let open = v1::UpsertStreamOpen { collection: self.collection.to_string(), wait: wait_into(self.wait) };
        v1::UpsertStreamRequest { message: Some(v1::upsert_stream_request::Message::Open(open)) }
    }
}

impl Convert for UploadAnswer {
    type Proto = v1::UpsertStreamResponse;
    type Error = WireError;

    fn from_proto(proto: v1::UpsertStreamResponse) -> Result<Self, WireError> {
        let credit = proto.credit.unwrap_or_default();
        let ack = proto.ack.map(Ack::from_proto).transpose().map_err(|error| error.within("ack"))?;
        Ok(Self { credit: Credit { points: credit.points, bytes: credit.bytes }, ack })
    }

    fn into_proto(self) -> v1::UpsertStreamResponse {
        let credit = v1::UploadCredit { points: self.credit.points, bytes: self.credit.bytes };
        v1::UpsertStreamResponse { credit: Some(credit), ack: self.ack.map(Convert::into_proto) }
    }
}

impl Convert for Ack {
    type Proto = v1::UpsertAck;
    type Error = WireError;

    fn from_proto(proto: v1::UpsertAck) -> Result<Self, WireError> {
        let outcome = match proto.problem {
            Some(problem) => Err(Problem::from_proto(problem)?),
            None => Ok(WriteResult::from_proto(required("result", proto.result)?)?),
        };
        Ok(Self { sequence: proto.sequence, outcome })
    }

    fn into_proto(self) -> v1::UpsertAck {
        let (result, problem) = match self.outcome {
            Ok(answer) => (Some(answer.into_proto()), None),
            Err(problem) => (None, Some(problem.into_proto())),
        };
        v1::UpsertAck { sequence: self.sequence, result, problem }
    }
}
