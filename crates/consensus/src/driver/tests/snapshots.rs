//! Members that fetch a whole state instead of entries.

use super::changes::{change, changed, members};
use super::crew::{Crew, ids, node_id};
use super::*;
use crate::settings::{ELECTION_TICKS, HEARTBEAT_TICKS, KEEP_FOR_PEERS, KEEP_OFFER_TICKS, OFFER_AGAIN_TICKS};

/// A group whose leader has cut its log, and a learner that has just joined and lacks what was cut. Returns both.
fn cut_off(seed: u64) -> (Crew, usize, usize) {
    let mut crew = Crew::offering(seed, 1);
    let leader = crew.leader_among(&[0]);
    write(&mut crew, leader, 0..500);
    let fresh = crew.join();
    crew.network.isolate(node_id(leader), &[node_id(fresh)]);
    let mut outcome = change(&mut crew, leader, &members(&[leader], &[fresh]));
    crew.settle();
    index_of(&mut outcome);
    cut_log(&mut crew, leader);
    crew.network.heal();
    (crew, leader, fresh)
}

fn write(crew: &mut Crew, leader: usize, numbers: std::ops::Range<u64>) {
    let numbers: Vec<_> = numbers.collect();
    for part in numbers.chunks(1_000) {
        let mut outcomes: Vec<_> = part.iter().map(|number| crew.propose(leader, *number)).collect();
        crew.settle();
        all_applied(&mut outcomes);
    }
}

/// Makes everything durable and has the log give up all that it may.
fn cut_log(crew: &mut Crew, node: usize) {
    crew.machine(node).make_durable();
    crew.crowd(node);
    crew.ticks(PURGE_TICKS as usize + POLL_TICKS as usize);
    let now = crew.status(node);
    assert_eq!(now.first, now.last + 1, "all of it is gone");
}

fn all_have(crew: &Crew, nodes: &[usize], upto: u64) {
    for node in nodes {
        assert_eq!(crew.status(*node).condition, Condition::Running, "node at {node}");
        assert_eq!(crew.commands(*node), (0..upto).map(text).collect::<Vec<_>>(), "node at {node}");
    }
}

#[test]
fn a_member_that_lacks_what_no_log_holds_fetches_the_state_and_follows() {
    let (mut crew, leader, fresh) = cut_off(1);
    crew.ticks(3 * ELECTION_TICKS);
    all_have(&crew, &[leader, fresh], 500);
    let found = crew.machine(fresh).lock().live.clone();
    assert_eq!(found.installed, Some(found.applied));
    let membership = crew.status(leader).membership;
    assert_eq!(crew.status(fresh).membership, membership);
    // It goes on as any other: entries, a vote, a restart.
    write(&mut crew, leader, 500..600);
    changed(&mut crew, leader, &[leader, fresh], &[]);
    crew.crash(fresh);
    crew.restart(fresh);
    crew.ticks(3 * ELECTION_TICKS);
    crew.crash(leader);
    crew.restart(leader);
    let leader = crew.leader_among(&[leader, fresh]);
    write(&mut crew, leader, 600..610);
    crew.ticks(3);
    all_have(&crew, &[leader, fresh], 610);
}

#[test]
fn an_offer_is_kept_while_somebody_fetches_and_let_go_afterwards() {
    let (mut crew, leader, fresh) = cut_off(2);
    crew.machine(fresh).lock().slow = true;
    crew.ticks(2 * KEEP_OFFER_TICKS as usize);
    assert_eq!(crew.machine(leader).lock().retracted, 0);
    // The log is not cut past the offer meanwhile, or the state would be of no use.
    write(&mut crew, leader, 500..900);
    crew.machine(leader).make_durable();
    crew.crowd(leader);
    crew.ticks(PURGE_TICKS as usize + POLL_TICKS as usize);
    let offered = crew.machine(fresh).lock().staged.as_ref().expect("staged").applied.index;
    assert_eq!(crew.status(leader).first, offered + 1);
    assert_eq!(crew.commands(fresh).len(), 0);
    let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
    waiting.end(Ok(()));
    crew.ticks(ELECTION_TICKS);
    all_have(&crew, &[leader, fresh], 900);
    crew.ticks(2 * KEEP_OFFER_TICKS as usize);
    assert_eq!(crew.machine(leader).lock().retracted, 1);
}

#[test]
fn while_an_offer_is_being_made_the_log_after_it_is_kept_and_a_member_learns_of_it_when_it_is_there() {
    let (mut crew, leader, fresh) = cut_off(8);
    crew.machine(leader).lock().slow_to_offer = true;
    crew.ticks(ELECTION_TICKS);
    let (done, offered) = crew.machine(leader).lock().offering.pop().expect("it was asked for an offer");
    write(&mut crew, leader, 500..900);
    crew.machine(leader).make_durable();
    crew.crowd(leader);
    crew.ticks(PURGE_TICKS as usize + POLL_TICKS as usize);
    assert_eq!(crew.status(leader).first, offered.0.index + 1, "without what follows it the state would be of no use");
    assert!(crew.machine(leader).lock().offering.is_empty(), "it is asked once");
    assert_eq!(crew.commands(fresh).len(), 0);
    done.end(Ok(offered));
    crew.ticks(ELECTION_TICKS);
    all_have(&crew, &[leader, fresh], 900);
}

#[test]
fn whoever_asks_while_an_offer_is_being_made_gets_that_one_and_no_other_is_made() {
    // At any moment between two heartbeats, after which raft asks.
    for later in 0..2 * HEARTBEAT_TICKS {
        let (mut crew, leader, fresh) = cut_off(10);
        crew.machine(leader).lock().slow_to_offer = true;
        crew.machine(fresh).lock().slow = true;
        crew.ticks(ELECTION_TICKS + later);
        let (done, offered) = crew.machine(leader).lock().offering.pop().expect("it was asked for an offer");
        done.end(Ok(offered));
        crew.ticks(ELECTION_TICKS);
        // Another one would take the place of this, which would not be there any more for whoever fetches it.
        assert!(crew.machine(leader).lock().offering.is_empty(), "{later} ticks later");
        let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
        waiting.end(Ok(()));
        crew.ticks(ELECTION_TICKS);
        all_have(&crew, &[leader, fresh], 500);
    }
}

#[test]
fn a_state_machine_that_does_not_come_to_an_offer_is_asked_again() {
    let (mut crew, leader, fresh) = cut_off(9);
    crew.machine(leader).lock().slow_to_offer = true;
    crew.ticks(ELECTION_TICKS);
    let (done, (position, membership, _)) = crew.machine(leader).lock().offering.pop().expect("it was asked");
    // Larger than a message of the group may be.
    done.end(Ok((position, membership, vec![0; (1 << 20) + 1].into())));
    crew.ticks(ELECTION_TICKS);
    let again = crew.machine(leader).lock().offering.pop().expect("it was asked again");
    drop(again);
    crew.machine(leader).lock().slow_to_offer = false;
    crew.ticks(3 * ELECTION_TICKS);
    all_have(&crew, &[leader, fresh], 500);
}

#[test]
fn a_state_that_could_not_be_fetched_or_installed_is_offered_again() {
    for failure in ["fetch", "drop", "install"] {
        let (mut crew, leader, fresh) = cut_off(3);
        crew.machine(fresh).lock().slow = true;
        crew.ticks(ELECTION_TICKS);
        let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
        match failure {
            "fetch" => waiting.end(Err("planted".to_owned())),
            "drop" => drop(waiting),
            _ => {
                crew.machine(fresh).lock().full = 1;
                waiting.end(Ok(()));
            }
        }
        crew.machine(fresh).lock().slow = false;
        crew.ticks(3);
        assert_eq!(crew.machine(leader).lock().retracted, 1, "{failure}: what is offered may be broken");
        crew.ticks(3 * ELECTION_TICKS);
        all_have(&crew, &[leader, fresh], 500);
    }
}

#[test]
fn a_group_stops_when_it_is_not_known_whether_a_state_was_installed() {
    let (mut crew, leader, fresh) = cut_off(3);
    crew.machine(fresh).lock().unsure = true;
    crew.ticks(3 * ELECTION_TICKS);
    let applied = crew.machine(fresh).lock().live.applied;
    let condition = crew.status(fresh).condition;
    assert!(matches!(&condition, Condition::Stopped(why) if why.contains("installing a state")), "{condition:?}");
    crew.propose(leader, 501);
    crew.ticks(3 * ELECTION_TICKS);
    assert_eq!(
        crew.machine(fresh).lock().live.applied,
        applied,
        "nothing is applied to a state that may not be on disk"
    );
}

#[test]
fn a_state_that_can_never_be_fetched_is_offered_ever_more_seldom() {
    let (mut crew, leader, fresh) = cut_off(10);
    crew.machine(fresh).lock().slow = true;
    let offers = |crew: &mut Crew, ticks: usize| {
        let before = crew.machine(leader).lock().retracted;
        for _ in 0..ticks {
            crew.ticks(1);
            let waiting = crew.machine(fresh).lock().waiting.pop();
            waiting.into_iter().for_each(|waiting| waiting.end(Err("no room".to_owned())));
        }
        crew.machine(leader).lock().retracted - before
    };
    let first = offers(&mut crew, 500);
    let later = offers(&mut crew, 2_000);
    assert!((4..=8).contains(&first) && (2..=4).contains(&later), "{first}, then {later}");
    crew.machine(fresh).lock().slow = false;
    crew.ticks(700);
    all_have(&crew, &[leader, fresh], 500);
}

#[test]
fn a_member_that_dies_while_it_fetches_or_whose_answer_is_lost_is_offered_again() {
    for dies in [true, false] {
        let (mut crew, leader, fresh) = cut_off(4);
        crew.machine(fresh).lock().slow = true;
        crew.ticks(ELECTION_TICKS);
        if dies {
            crew.crash(fresh);
            crew.restart(fresh);
        } else {
            crew.network.cut(node_id(fresh), node_id(leader));
            let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
            waiting.end(Ok(()));
            crew.ticks(ELECTION_TICKS);
            crew.network.heal();
        }
        write(&mut crew, leader, 500..510);
        crew.ticks(OFFER_AGAIN_TICKS as usize + 3 * ELECTION_TICKS);
        all_have(&crew, &[leader, fresh], 510);
    }
}

#[test]
fn a_power_loss_at_any_step_of_installing_is_got_over() {
    use crate::log::memory::Fault;
    let mut died = 0;
    for later in 0..6 {
        for fault in [Fault::PowerBeforeWrite, Fault::PowerBeforeSync, Fault::PowerAfterSync] {
            let (mut crew, leader, fresh) = cut_off(5);
            crew.machine(fresh).lock().slow = true;
            crew.ticks(ELECTION_TICKS);
            crew.inject(fresh, later, fault);
            let waiting = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
            waiting.end(Ok(()));
            crew.ticks(ELECTION_TICKS);
            write(&mut crew, leader, 500..520);
            crew.ticks(3);
            died += usize::from(matches!(crew.status(fresh).condition, Condition::Stopped(_)));
            crew.crash(fresh);
            crew.restart(fresh);
            crew.ticks(OFFER_AGAIN_TICKS as usize + 3 * ELECTION_TICKS);
            all_have(&crew, &[leader, fresh], 520);
            assert_eq!(crew.status(fresh).membership, crew.status(leader).membership, "{fault:?} at {later}");
        }
    }
    assert!(died >= 6, "the power went only {died} times");
}

#[test]
fn an_offer_of_what_is_here_already_changes_nothing() {
    let (mut crew, leader, fresh) = cut_off(6);
    crew.machine(fresh).lock().slow = true;
    crew.ticks(ELECTION_TICKS);
    let old = crew.machine(fresh).lock().waiting.pop().expect("it fetches");
    // Somebody else's entries have brought it there meanwhile: as if by a state that was installed in between.
    let (env_offer, position) = {
        let state = crew.machine(fresh).lock();
        let staged = state.staged.clone().expect("staged");
        (staged.clone(), staged.applied)
    };
    {
        let mut state = crew.machine(fresh).lock();
        (state.live, state.durable) = (env_offer.clone(), env_offer);
        state.staged = None;
    }
    crew.crash(fresh);
    crew.restart(fresh);
    drop(old);
    crew.machine(fresh).lock().slow = true;
    crew.ticks(OFFER_AGAIN_TICKS as usize + 3 * ELECTION_TICKS);
    assert!(crew.machine(fresh).lock().waiting.is_empty(), "nothing was fetched again");
    assert_eq!(crew.machine(fresh).lock().live.installed, Some(position));
    all_have(&crew, &[leader, fresh], 500);
}

#[test]
fn the_log_is_kept_for_members_that_lag_a_little_and_not_for_those_that_lag_much() {
    let mut crew = Crew::offering(7, 3);
    let leader = crew.leader_among(&[0, 1, 2]);
    let lags = (leader + 1) % 3;
    write(&mut crew, leader, 0..1_000);
    crew.ticks(3);
    crew.network.isolate(node_id(lags), &ids(&[leader, (leader + 2) % 3]));
    let had = crew.status(lags).last;
    let cut = |crew: &mut Crew| {
        crew.machine(leader).make_durable();
        crew.ticks(POLL_TICKS as usize + 1);
        crew.status(leader).first
    };
    write(&mut crew, leader, 1_000..2_000);
    assert_eq!(cut(&mut crew), had + 1);
    write(&mut crew, leader, 2_000..(3_000 + KEEP_FOR_PEERS));
    let first = cut(&mut crew);
    assert!(first > had + 1_000 && crew.status(leader).last - first >= KEEP_FOR_PEERS, "{first}");
    crew.network.heal();
    crew.ticks(5 * ELECTION_TICKS);
    let nodes: Vec<_> = (0..3).collect();
    all_have(&crew, &nodes, 3_000 + KEEP_FOR_PEERS);
    assert!(crew.machine(lags).lock().live.installed.is_some(), "by entries alone it would not have come so far");
}
