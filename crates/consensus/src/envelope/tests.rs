use raft::eraftpb::Entry;

use super::*;

const CLUSTER: ClusterId = ClusterId(0x0102);

fn envelope(kind: MessageType) -> Envelope {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term, message.index, message.log_term) = (2, 1, 3, 4, 2);
    Envelope { cluster: CLUSTER, group: GroupId(9), message }
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (index, term, Bytes::from_static(b"x"));
    entry
}

#[test]
fn the_bytes_of_format_1_stay_readable() {
    let golden = [
        &[1][..],
        &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[9, 0, 0, 0, 0, 0, 0, 0],
        // Fields 1 to 6 of eraftpb.Message: type 8 (heartbeat), to, from, term, log_term, index.
        &[0x08, 8, 0x10, 1, 0x18, 2, 0x20, 3, 0x28, 2, 0x30, 4],
    ]
    .concat();
    assert_eq!(envelope(MessageType::MsgHeartbeat).encode(), golden);
    assert_eq!(Envelope::decode(&Bytes::from(golden)), Ok(envelope(MessageType::MsgHeartbeat)));
}

#[test]
fn what_is_not_a_message_is_refused() {
    let good = envelope(MessageType::MsgHeartbeat).encode();
    for cut in 0..25 {
        assert_eq!(Envelope::decode(&good.slice(..cut)), Err(BadMessage::Malformed), "cut at {cut}");
    }
    let other_format = Bytes::from([&[9][..], &good[1..]].concat());
    assert_eq!(Envelope::decode(&other_format), Err(BadMessage::Malformed));
    let garbage = Bytes::from([&good[..25], &[0xff; 9][..]].concat());
    assert_eq!(Envelope::decode(&garbage), Err(BadMessage::Malformed));
}

#[test]
fn what_would_make_raft_panic_is_refused() {
    let check = |change: &dyn Fn(&mut Envelope), kind| {
        let mut envelope = envelope(kind);
        change(&mut envelope);
        envelope.check(CLUSTER, NodeId(1), 10)
    };
    let heartbeat = MessageType::MsgHeartbeat;
    assert_eq!(check(&|_| (), heartbeat), Ok(()));
    assert_eq!(check(&|e| e.cluster = ClusterId(5), heartbeat), Err(BadMessage::OtherCluster(ClusterId(5))));
    assert_eq!(check(&|e| e.message.to = 4, heartbeat), Err(BadMessage::Misaddressed(NodeId(4))));
    assert_eq!(check(&|e| e.message.from = 1, heartbeat), Err(BadMessage::BadSender(NodeId(1))));
    assert_eq!(check(&|e| e.message.from = 0, heartbeat), Err(BadMessage::BadSender(NodeId(0))));
    assert_eq!(check(&|e| e.message.term = 0, heartbeat), Err(BadMessage::NoTerm));
    assert_eq!(check(&|e| e.message.commit = 11, heartbeat), Err(BadMessage::CommitBeyondLog { commit: 11, last: 10 }));
    for kind in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgReadIndex, MessageType::MsgUnreachable] {
        assert_eq!(check(&|_| (), kind), Err(BadMessage::BadType(kind)));
    }
    let offer = |index, term, bytes, voters: Vec<u64>| {
        let change = |e: &mut Envelope| {
            let snapshot = e.message.mut_snapshot();
            snapshot.data = vec![0; bytes].into();
            let meta = snapshot.mut_metadata();
            (meta.index, meta.term) = (index, term);
            meta.mut_conf_state().set_voters(voters.clone());
        };
        check(&change, MessageType::MsgSnapshot)
    };
    assert_eq!(offer(500, 3, MAX_MANIFEST_BYTES, vec![1, 2]), Ok(()));
    for (index, term) in [(0, 3), (500, 0), (500, 4)] {
        assert_eq!(offer(index, term, 0, vec![1]), Err(BadMessage::BrokenSequence));
    }
    assert_eq!(offer(500, 3, MAX_MANIFEST_BYTES + 1, vec![1]), Err(BadMessage::Malformed));
    for voters in [vec![], vec![0, 1], vec![1, 1]] {
        assert!(matches!(offer(500, 3, 0, voters), Err(BadMessage::BadMembers(_))));
    }
    let append =
        |entries: Vec<Entry>| check(&|e| e.message.set_entries(entries.clone().into()), MessageType::MsgAppend);
    assert_eq!(append(vec![entry(5, 2), entry(6, 3)]), Ok(()));
    for broken in [vec![entry(6, 2)], vec![entry(5, 1)], vec![entry(5, 4)], vec![entry(5, 3), entry(5, 3)]] {
        assert_eq!(append(broken), Err(BadMessage::BrokenSequence));
    }
}
