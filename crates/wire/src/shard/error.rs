//! Why a replica did not answer, to and from its message.

use std::time::Duration;

use sagitta_model::{Elsewhere, ErrorKind, Record, ShardError, Violation};

use crate::common::{Convert, node, text, unknown_enum};
use crate::failure::{kind_from, kind_into, shorten};
use crate::internal as p;
use crate::v1;

/// Longest message, in bytes. What is sent is cut to it.
const MAX_TEXT_BYTES: usize = 4_096;
/// Nobody is told to come back later than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl Convert for ShardError {
    type Proto = p::ShardError;
    type Error = Violation;

    fn from_proto(proto: p::ShardError) -> Result<Self, Violation> {
        let kind = v1::ErrorKind::try_from(proto.kind).ok().and_then(kind_from);
        let retry_after = proto.retry_after.map(|delay| match Duration::try_from(delay) {
            Ok(delay) if delay <= MAX_RETRY_AFTER => Ok(delay),
            _ => Err(Violation::new("retry_after", format!("is {delay}, expected 0 to {MAX_RETRY_AFTER:?}"))),
        });
        Ok(Self {
            kind: kind.ok_or_else(|| unknown_enum("kind", proto.kind))?,
            message: text("message", proto.message, 0, MAX_TEXT_BYTES)?,
            request_id_reused: proto.request_id_reused,
            retry_after: retry_after.transpose()?,
            in_doubt: proto.in_doubt,
            elsewhere: proto.elsewhere.map(elsewhere_from).transpose()?,
        })
    }

    fn into_proto(self) -> p::ShardError {
        let retry_after = self.retry_after.map(|delay| delay.min(MAX_RETRY_AFTER));
        p::ShardError {
            kind: kind_into(self.kind).into(),
            message: shorten(&self.message, MAX_TEXT_BYTES),
            request_id_reused: self.request_id_reused,
            retry_after: retry_after.and_then(|delay| delay.try_into().ok()),
            in_doubt: self.in_doubt,
            elsewhere: self.elsewhere.and_then(elsewhere_into),
        }
    }
}

fn elsewhere_from(proto: p::shard_error::Elsewhere) -> Result<Elsewhere, Violation> {
    match proto {
        p::shard_error::Elsewhere::NotHosted(p::NotHosted {}) => Ok(Elsewhere::NotHosted),
        p::shard_error::Elsewhere::StaleRoute(p::StaleRoute { epoch }) => Ok(Elsewhere::Stale { epoch }),
        p::shard_error::Elsewhere::Divided(p::Divided {}) => Ok(Elsewhere::Divided),
        p::shard_error::Elsewhere::NotLeader(p::NotLeader { hint }) => {
            let hint = hint.map(|hint| node("not_leader.hint", hint)).transpose()?;
            Ok(Elsewhere::NotLeader { hint })
        }
    }
}

fn elsewhere_into(elsewhere: Elsewhere) -> Option<p::shard_error::Elsewhere> {
    match elsewhere {
        Elsewhere::NotHosted => Some(p::shard_error::Elsewhere::NotHosted(p::NotHosted {})),
        Elsewhere::Stale { epoch } => Some(p::shard_error::Elsewhere::StaleRoute(p::StaleRoute { epoch })),
        Elsewhere::NotLeader { hint } => Some(p::shard_error::Elsewhere::NotLeader(p::NotLeader { hint })),
        Elsewhere::Divided => Some(p::shard_error::Elsewhere::Divided(p::Divided {})),
        // Only a caller can say this, of a node that says nothing.
        Elsewhere::Unreachable => None,
    }
}

/// What is said instead of an answer that is larger than a message.
pub(super) fn too_heavy() -> p::ShardError {
    ShardError::new(ErrorKind::Invalid, Record::too_heavy().reason).into_proto()
}
