//! What nodes and coordinators tell each other: it arrives as it was sent, keeps its bytes, and is refused with the field's name
//! where it is nonsense.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use sagitta_cluster::{
    Command, Floor, GroupMembers, MergeReport, MergeStage, Place, ReplicaLoad, ReplicaReport, ReplicaRole, Report,
    Roles, State,
};
use sagitta_model::Violation;

use super::any;
use super::golden::{self, hex};
use super::round_trip::{check, sent};
use crate::control::*;
use crate::internal as p;
use crate::peer::{Run, refusal};
use crate::shard::Answered as _;
use crate::{Convert, Failure};

fn place() -> Place {
    Place {
        peer_address: "http://10.0.0.7:6381".to_owned(),
        api_address: "http://10.0.0.7:6380".to_owned(),
        zone: "east".to_owned(),
        roles: Roles { coordinator: true, shard: true },
    }
}

fn join() -> Join {
    let run = Run { number: 3, id: 0xd1, address: "10.0.0.7:6381".parse().unwrap() };
    Join { token: "secret".to_owned(), node: 7, incarnation: 0xa1 << 120, place: place(), cluster: Some(0xc1), run }
}

fn report() -> Report {
    let replica = ReplicaReport {
        shard: 17,
        epoch: 1,
        role: ReplicaRole::Follower,
        leader: Some(9),
        term: 2,
        applied: 300,
        points: 4,
        disk_bytes: 5,
        data_bytes: 0,
        load: ReplicaLoad::default(),
        problem: Some("opening".to_owned()),
        split: None,
        members: None,
        last: Floor { term: 0, index: 0 },
    };
    let members = Some(GroupMembers { voters: vec![7, 9], learners: vec![11] });
    let healthy =
        ReplicaReport { shard: 18, role: ReplicaRole::Leader, leader: None, problem: None, members, ..replica.clone() };
    let (searches_waiting, search_threads, shortage) = (3, 0, Some("disk".to_owned()));
    let (replicas, merges) = (vec![replica, healthy], Vec::new());
    Report { replicas, searches_waiting, search_threads, shortage, deletions: 7, merges }
}

/// What older nodes do not tell.
fn report_of_load() -> Report {
    let mut report = Report { search_threads: 8, ..report() };
    let replica = &mut report.replicas[0];
    (replica.data_bytes, replica.load) = (6, ReplicaLoad { recent_us: 7, lasting_us: 300 });
    replica.last = Floor { term: 2, index: 301 };
    report
}

fn state() -> State {
    let mut state = State::new(0xc1);
    state.apply(Command::Join { id: 7, incarnation: 1, run: 0, place: place(), unix_micros: 2 }).unwrap();
    state
}

proptest! {
    #[test]
    fn reports(report in any::report()) {
        check(report)?;
    }

    #[test]
    fn decisions(command in vec(any::<u8>(), 1..50), index in any::<u64>(), error in any::shard_error()) {
        let command = Bytes::from(command);
        let request = sent(&p::ProposeRequest { command: command.clone() });
        prop_assert_eq!(command_from(request).unwrap(), command.clone());
        for answer in [Ok(command), Err(error.clone())] {
            prop_assert_eq!(sent(&propose_answer(answer.clone())).answered(&()).unwrap(), answer);
        }
        for answer in [Ok(index), Err(error)] {
            prop_assert_eq!(sent(&read_index_answer(answer.clone())).answered(&()).unwrap(), answer);
        }
    }

    #[test]
    fn joins(
        token in ".{1,40}",
        node in 1..=u64::MAX,
        uuid in any::<u128>(),
        places in vec(any::place(), 1..4),
        cluster in proptest::option::of(any::<u128>()),
        run in (1..=u64::MAX, any::<u128>(), any::<[u8; 4]>(), any::<u16>()),
    ) {
        let run = Run { number: run.0, id: run.1, address: (run.2, run.3).into() };
        check(Join { token, node, incarnation: uuid, place: places[0].clone(), cluster, run })?;
        let coordinators = places.into_iter().map(|place| (node, place.peer_address)).collect();
        check(Joined { cluster: uuid, coordinators })?;
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        report in any::report(),
        flips in vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let state = state_message(3, &state());
        for mut bytes in [report.into_proto().encode_to_vec(), join().into_proto().encode_to_vec(), state.encode_to_vec()] {
            for (at, value) in &flips {
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] = *value;
                }
            }
            read_as_everything(&bytes);
            bytes.truncate(cut % (bytes.len() + 1));
            read_as_everything(&bytes);
        }
    }
}

fn read_as_everything(bytes: &[u8]) {
    let _ = p::JoinRequest::decode(bytes).map(Join::from_proto);
    let _ = p::JoinResponse::decode(bytes).map(Joined::from_proto);
    let _ = p::NodeReport::decode(bytes).map(Report::from_proto);
    let _ = p::ProposeRequest::decode(bytes).map(command_from);
    let _ = p::ProposeResponse::decode(bytes).map(|message| message.answered(&()));
    let _ = p::ControlState::decode(bytes).map(|message| state_from(&message));
}

#[test]
fn each_message_keeps_its_bytes() {
    let joined = Joined { cluster: 0xc1, coordinators: vec![(7, place().peer_address)] };
    let messages = [
        ("JoinRequest", hex(&join().into_proto())),
        ("JoinResponse", hex(&joined.into_proto())),
        ("NodeReport", hex(&report().into_proto())),
        ("ProposeRequest", hex(&p::ProposeRequest { command: "command".into() })),
        ("ProposeResponse", hex(&propose_answer(Ok("outcome".into())))),
        ("ReadIndexResponse", hex(&read_index_answer(Ok(300)))),
        ("MergeReport", hex(&MergeReport { shard: 17, merge: 300, stage: MergeStage::Frozen }.into_proto())),
        ("ControlState", hex(&p::ControlState { applied_index: 300, state: "state".into() })),
        ("NodeReport.load", hex(&report_of_load().into_proto())),
    ];
    golden::check(include_str!("golden_control.txt"), &messages);
}

fn refused<T: std::fmt::Debug>(field: &str, reason: &str, read: Result<T, Violation>) {
    let violation = read.expect_err(field);
    assert_eq!(violation.field, field, "{violation}");
    assert!(violation.reason.contains(reason), "{violation}");
}

#[test]
fn what_is_nonsense_is_refused_with_the_fields_name() {
    let only = |failure: Failure| failure.violations.into_iter().next().unwrap();
    let read = |proto| Join::from_proto(proto).map_err(only);
    let good = || join().into_proto();
    refused("token", "0 bytes", read(p::JoinRequest { token: String::new(), ..good() }));
    refused("token", "257 bytes", read(p::JoinRequest { token: "x".repeat(257), ..good() }));
    refused("node", "no node", read(p::JoinRequest { node: 0, ..good() }));
    refused("incarnation", "UUID", read(p::JoinRequest { incarnation: vec![1; 17].into(), ..good() }));
    refused("place", "is missing", read(p::JoinRequest { place: None, ..good() }));
    refused("cluster", "UUID", read(p::JoinRequest { cluster: vec![1; 17].into(), ..good() }));
    refused("run", "is missing", read(p::JoinRequest { run: None, ..good() }));
    let placed = |place: p::NodePlace| read(p::JoinRequest { place: Some(place), ..good() });
    let here = || place().into_proto();
    for address in ["10.0.0.7:6381", "http://", "somewhere", "/a", "http://a b"] {
        let peer_address = address.to_owned();
        refused("place.peer_address", "is no address", placed(p::NodePlace { peer_address, ..here() }));
    }
    let api_address = format!("http://{}", "a".repeat(512));
    refused("place.api_address", "519 bytes", placed(p::NodePlace { api_address, ..here() }));
    refused("place.zone", "129 bytes", placed(p::NodePlace { zone: "z".repeat(129), ..here() }));
    let other = Join::from_proto(p::JoinRequest { protocol: 2, ..Default::default() }).unwrap_err();
    assert_eq!(other.reason, refusal::OTHER_PROTOCOL);

    let nobody = p::JoinResponse { cluster: vec![1; 16].into(), coordinators: Vec::new() };
    refused("coordinators", "0 entries", Joined::from_proto(nobody));
    let crowd = vec![p::CoordinatorAddress::default(); 65];
    let crowd = p::JoinResponse { cluster: vec![1; 16].into(), coordinators: crowd };
    refused("coordinators", "65 entries", Joined::from_proto(crowd));
    let read = Report::from_proto;
    let good = || report().into_proto();
    let swapped = good().replicas.into_iter().rev().collect();
    refused("replicas[1].shard", "above", read(p::NodeReport { replicas: swapped, ..good() }));
    let twice = vec![good().replicas.remove(0); 2];
    refused("replicas[1].shard", "above", read(p::NodeReport { replicas: twice, ..good() }));
    refused("shortage", "1025 bytes", read(p::NodeReport { shortage: Some("x".repeat(1_025)), ..good() }));
    let merges = vec![p::MergeReport { shard: 17, merge: 1, stage: 5 }];
    refused("merges[0].stage", "is 5", read(p::NodeReport { merges, ..good() }));
    let replica = |change: fn(&mut p::ReplicaReport)| {
        let mut report = good();
        change(&mut report.replicas[1]);
        read(report)
    };
    refused("replicas[1].role", "is 0", replica(|replica| replica.role = 0));
    refused("replicas[1].role", "is 9", replica(|replica| replica.role = 9));
    refused("replicas[1].leader", "no node", replica(|replica| replica.leader = Some(0)));
    refused("replicas[1].problem", "1025 bytes", replica(|replica| replica.problem = Some("x".repeat(1_025))));
    refused("command", "0 bytes", command_from(p::ProposeRequest::default()));
    let large = p::ProposeResponse { outcome: vec![0; (1 << 20) + 1].into(), error: None };
    refused("outcome", "1048577 bytes", large.answered(&()));
    let many = vec![p::ReplicaReport::default(); 65_537];
    refused("replicas", "65537 entries", read(p::NodeReport { replicas: many, ..good() }));
}

#[test]
fn a_state_travels_with_its_index_and_no_other() {
    let message = state_message(300, &state());
    assert_eq!(state_from(&sent(&message)), Ok((300, state())));
    refused("applied_index", "is 299", state_from(&p::ControlState { applied_index: 299, ..message.clone() }));
    let mut damaged = message.state.to_vec();
    damaged[5] ^= 1;
    refused("state", "damaged", state_from(&p::ControlState { state: damaged.into(), ..message }));
}

#[test]
fn what_a_node_says_of_itself_is_cut_to_what_is_taken() {
    let mut long = report();
    long.shortage = Some("x".repeat(5_000));
    long.replicas[0].problem = Some("é".repeat(5_000));
    let arrived = Report::from_proto(sent(&long.into_proto())).unwrap();
    assert!(arrived.shortage.unwrap().ends_with("x..."));
    assert!(arrived.replicas[0].problem.as_ref().unwrap().ends_with("é..."));
}

#[test]
fn a_token_is_not_printed() {
    assert!(!format!("{:?}", join()).contains("secret"));
}
