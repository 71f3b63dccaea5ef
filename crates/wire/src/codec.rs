//! How messages become bytes and back on a gRPC stream.

use std::marker::PhantomData;

use prost::Message;
use sagitta_model::{ErrorKind, Record, limits};
use tonic::codec::DecodeBuf;
use tonic::{Response, Status};
use tonic_prost::ProstEncoder;

use crate::failure::{Failure, reason};

/// Protobuf, with a message that cannot be decoded reported as the caller's mistake, not the server's.
///
/// Decoding is bounded: nesting deeper than prost's limit of 100 messages is refused, so it cannot overflow the
/// stack, and the transport has bounded the size before.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

/// The decoding half of [`Codec`].
#[derive(Debug)]
pub struct Decoder<U>(PhantomData<U>);

/// An answer with points, unless it is larger than a message may be: the transport would refuse it without saying what to do.
///
/// # Errors
/// A request that asked for too much.
pub fn answer<M: Message>(message: M) -> Result<Response<M>, Failure> {
    if message.encoded_len() > limits::MAX_MESSAGE_BYTES {
        return Err(Failure::invalid(Record::too_heavy()));
    }
    Ok(Response::new(message))
}

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(PhantomData)
    }
}

impl<U: Message + Default> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(|error| {
            let message = format!("the message cannot be decoded: {error}");
            Failure::new(ErrorKind::Invalid, message).with_reason(reason::MALFORMED_MESSAGE).into()
        })
    }
}
