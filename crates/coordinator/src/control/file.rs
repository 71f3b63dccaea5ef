//! The control state as a file, with what its Raft group must find again beside it.

use std::path::Path;
use std::{fs, io};

use sagitta_cluster::{SnapshotError, State};
use sagitta_consensus::{Membership, Position, write_whole};
use sagitta_model::ErrorKind;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::ControlError;

/// In the control group's folder.
pub(super) const STATE_FILE: &str = "state.json";

/// A line feed, 16 hexadecimal digits and another line feed: the checksum at the end of an encoded state.
const TRAILER_BYTES: usize = 18;

/// What a control group has applied, as its file keeps it: entries after it are in its log.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The state.
    pub state: State,
    /// The last entry that is in it.
    pub applied: Position,
    /// Who belongs to the group, once an entry has changed that.
    pub membership: Option<Membership>,
    /// Where the state stood when it was fetched whole from another coordinator, if it was.
    pub installed: Option<Position>,
}

impl Kept {
    /// Reads the file in the control group's folder; `None` if there is none.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Corrupt`] for a file that is not what was written.
    pub fn read(dir: &Path) -> Result<Option<Self>, ControlError> {
        let path = dir.join(STATE_FILE);
        let told =
            |kind, error: &dyn std::fmt::Display| ControlError::new(kind, format!("{}: {error}", path.display()));
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes).map(Some).map_err(|error| told(ErrorKind::Corrupt, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(ErrorKind::Unavailable, &error)),
        }
    }

    /// Writes the file, durably: for a state that comes from elsewhere than the control group that is opened there next. The folder is made if
    /// there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, dir: &Path) -> Result<(), ControlError> {
        let path = dir.join(STATE_FILE);
        let written = fs::create_dir_all(dir).and_then(|()| write_whole(&path, &self.encode()));
        written.map_err(|error| ControlError::new(ErrorKind::Unavailable, format!("{}: {error}", path.display())))
    }

    /// The encoded state with one more field in its document, `group`, unless there is nothing to say: builds that do not
    /// know the field read such a file all the same.
    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes = self.state.encode(self.applied.index, self.applied.term);
        if self.membership.is_none() && self.installed.is_none() {
            return bytes;
        }
        let membership = self.membership.as_ref().map(|membership| hex(&membership.encode()));
        let installed = self.installed.map(|Position { index, term }| [index, term]);
        let group = json!({ "membership": membership, "installed": installed });
        let document = &bytes[..bytes.len() - TRAILER_BYTES];
        let open = document.strip_suffix(b"}").expect("invariant: the document is an object");
        let mut bytes = [open, b",\"group\":", group.to_string().as_bytes(), b"}"].concat();
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(format!("\n{sum:016x}\n").as_bytes());
        bytes
    }

    /// Reads what [`Kept::encode`] wrote, or [`State::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (state, index, term) = State::decode(bytes)?;
        let malformed = |what: &str| SnapshotError::Malformed(format!("the field `group`: {what}"));
        let document = bytes.len().checked_sub(TRAILER_BYTES).map_or(bytes, |end| &bytes[..end]);
        let document: Value = serde_json::from_slice(document).map_err(|error| malformed(&error.to_string()))?;
        let group = &document["group"];
        let membership = match &group["membership"] {
            Value::Null => None,
            Value::String(digits) => {
                let membership = unhex(digits).and_then(|bytes| Membership::decode(&bytes));
                Some(membership.ok_or_else(|| malformed("the membership is none"))?)
            }
            _ => return Err(malformed("the membership is no text")),
        };
        let installed = match &group["installed"] {
            Value::Null => None,
            place => match (place[0].as_u64(), place[1].as_u64()) {
                (Some(index), Some(term)) => Some(Position { index, term }),
                _ => return Err(malformed("`installed` is no place in the log")),
            },
        };
        Ok(Self { state, applied: Position { index, term }, membership, installed })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? << 4 | digit(*pair.get(1)?)?).ok();
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use sagitta_consensus::NodeId;

    use super::*;

    fn sample() -> Kept {
        Kept {
            state: State::new(0xc1),
            applied: Position { index: 300, term: 3 },
            membership: Some(Membership {
                learners: vec![NodeId(9)],
                ..Membership::of_voters(&[NodeId(1), NodeId(2)])
            }),
            installed: Some(Position { index: 200, term: 2 }),
        }
    }

    #[test]
    fn a_state_reads_back_with_its_members_and_one_without_them_is_as_ever() {
        let alone = Kept { membership: None, installed: None, ..sample() };
        assert_eq!(alone.encode(), alone.state.encode(300, 3));
        for kept in [sample(), Kept { membership: None, ..sample() }, Kept { installed: None, ..sample() }, alone] {
            assert_eq!(Kept::decode(&kept.encode()), Ok(kept));
        }
    }

    #[test]
    fn the_field_keeps_its_bytes_and_does_not_disturb_whoever_does_not_know_it() {
        let bytes = sample().encode();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let golden = concat!(
            r#","group":{"installed":[200,2],"membership":"0100"#,
            "0200000001000000000000000200000000000000",
            "010000000900000000000000",
            "0000000000000000\"}}\n"
        );
        assert!(text.contains(golden), "{text}");
        assert_eq!(State::decode(&bytes), Ok((sample().state, 300, 3)));
    }

    #[test]
    fn damage_and_fields_that_say_nothing_are_refused() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Kept::decode(&damaged).is_err(), "at {at}");
        }
        let document = String::from_utf8(bytes[..bytes.len() - TRAILER_BYTES].to_vec()).unwrap();
        for (from, to) in [("\"0100", "\"0200"), ("\"0100", "\"010"), ("[200,2]", "[200]"), ("[200,2]", "\"x\"")] {
            let changed = document.replacen(from, to, 1);
            assert_ne!(changed, document);
            let sealed = format!("{changed}\n{:016x}\n", xxh3_64(changed.as_bytes()));
            assert!(matches!(Kept::decode(sealed.as_bytes()), Err(SnapshotError::Malformed(_))), "{from} -> {to}");
        }
    }
}
