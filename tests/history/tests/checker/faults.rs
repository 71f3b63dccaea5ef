//! The classic faults, each as the shortest history that shows it, beside one that differs in a trifle and is right.

use sagitta_history::{BUDGET_STEPS, Catalog, Points, Verdict, check};

use crate::notation::{Counter, Notation, history};

/// Line `at` of `wrong` cannot be explained; all of `right` can.
#[track_caller]
fn caught<M: Notation>(model: &M, wrong: &str, at: usize, right: &str) {
    match check(model, &history::<M>(wrong), BUDGET_STEPS) {
        Verdict::Violation(violation) => assert_eq!(violation.unexplained, at, "{violation:?}"),
        other => panic!("not caught: {other:?}"),
    }
    accepted(model, right);
}

#[track_caller]
fn accepted<M: Notation>(model: &M, right: &str) {
    let verdict = check(model, &history::<M>(right), BUDGET_STEPS);
    assert!(matches!(verdict, Verdict::Linearizable { .. }), "{verdict:?}");
}

#[test]
fn a_stale_read_is_caught() {
    let wrong = "1 0..1 put 1\n 1 2..3 put 2\n 2 4..5 get 1";
    caught(&Points, wrong, 2, "1 0..1 put 1\n 1 2..4 put 2\n 2 3..5 get 1");
}

#[test]
fn a_lost_update_is_caught() {
    let wrong = "1 0..3 put 1\n 2 1..2 put 2\n 3 4..5 get -";
    caught(&Points, wrong, 2, "1 0..3 put 1\n 2 1..2 put 2\n 3 4..5 get 2");
}

#[test]
fn an_early_acknowledgement_is_caught() {
    let wrong = "1 0..1 put 1\n 2 2..3 get -\n 2 4..5 get 1";
    caught(&Points, wrong, 1, "1 0..4 put 1\n 2 2..3 get -\n 2 5..6 get 1");
}

#[test]
fn a_retried_write_that_is_applied_again_is_caught() {
    let wrong = "1 0..3 put 1\n 2 4..5 put 2\n 2 6..7 get 2\n 2 8..9 get 1";
    caught(&Points, wrong, 3, "1 0..9 put 1\n 2 4..5 put 2\n 2 6..7 get 2\n 2 8..9 get 1");
}

#[test]
fn a_retried_increment_that_counts_twice_is_caught() {
    caught(&Counter, "1 0..5 add 1 1\n 2 6..7 read 2", 1, "1 0..5 add 1 1\n 3 4..? add 1 0\n 2 6..7 read 2");
}

#[test]
fn an_increment_lost_between_two_that_answer_alike_is_caught() {
    caught(&Counter, "1 0..2 add 1 1\n 2 1..3 add 1 1", 1, "1 0..2 add 1 1\n 2 1..3 add 1 2");
}

#[test]
fn a_value_that_nobody_wrote_is_caught() {
    caught(&Points, "1 0..1 put 1\n 2 2..3 get 9", 1, "1 0..1 put 1\n 3 0..? put 9\n 2 2..3 get 9");
}

#[test]
fn a_value_read_before_it_is_written_is_caught() {
    caught(&Points, "2 0..1 get 1\n 1 2..3 put 1", 0, "2 0..2 get 1\n 1 1..3 put 1");
}

#[test]
fn a_resurrection_after_a_delete_is_caught() {
    let wrong = "1 0..1 put 1\n 1 2..3 delete\n 2 4..5 get -\n 2 6..7 get 1";
    caught(&Points, wrong, 3, "1 0..1 put 1\n 1 2..3 delete\n 2 4..5 get -\n 3 5..? put 1\n 2 6..7 get 1");
}

#[test]
fn a_delete_without_effect_is_caught() {
    caught(&Points, "1 0..1 put 1\n 1 2..3 delete\n 2 4..5 get 1", 2, "1 0..1 put 1\n 1 2..! delete\n 2 4..5 get 1");
}

#[test]
fn reads_of_two_clients_that_go_back_in_time_are_caught() {
    let wrong = "1 0..1 put 1\n 1 2..9 put 2\n 2 3..4 get 2\n 3 5..6 get 1";
    caught(&Points, wrong, 3, "1 0..1 put 1\n 1 2..9 put 2\n 2 3..5 get 2\n 3 4..6 get 1");
}

#[test]
fn a_failed_write_that_takes_effect_is_caught() {
    caught(&Points, "1 0..! put 1\n 2 2..3 get 1", 1, "1 0..? put 1\n 2 2..3 get 1");
}

#[test]
fn an_unknown_write_that_takes_effect_twice_is_caught() {
    let wrong = "1 0..? put 1\n 2 1..2 get 1\n 2 3..4 put 2\n 2 5..6 get 1";
    caught(&Points, wrong, 3, "1 0..? put 1\n 2 1..2 get -\n 2 3..4 put 2\n 2 5..6 get 1");
}

#[test]
fn an_unknown_write_that_takes_effect_before_its_call_is_caught() {
    caught(&Points, "2 0..1 get 1\n 1 2..? put 1", 0, "2 0..3 get 1\n 1 2..? put 1");
}

#[test]
fn a_write_that_was_seen_and_is_gone_is_caught() {
    let wrong = "1 0..? put 1\n 2 1..2 get 1\n 2 3..4 get -";
    caught(&Points, wrong, 2, "1 0..? put 1\n 2 1..2 get -\n 2 3..4 get 1");
}

#[test]
fn two_leaders_at_once_are_caught() {
    let wrong = "1 0..1 put 1\n 2 2..3 put 2\n 1 4..6 get 1\n 2 5..7 get 2";
    caught(&Points, wrong, 2, "1 0..3 put 1\n 2 2..3 put 2\n 1 4..6 get 1\n 2 5..7 get 1");
}

#[test]
fn a_write_that_lands_at_another_point_is_caught() {
    caught(&Points, "1 0..1 put 1 at 8\n 2 2..3 get 1", 1, "1 0..1 put 1 at 7\n 2 2..3 get 1");
}

#[test]
fn a_session_that_does_not_read_its_own_write_is_caught() {
    let wrong = "1 0..1 put 1\n 2 2..3 put 2\n 2 4..5 @1 get 1";
    caught(&Points, wrong, 2, "1 0..1 put 1\n 2 2..3 put 2\n 1 4..5 @0 get 1");
}

#[test]
fn a_session_that_reads_from_before_its_write_while_that_was_under_way_is_caught() {
    // Its own write came after the one that it reads: both returned, and a read in between proves it.
    let wrong = "1 0..1 put 1\n 2 2..5 put 2\n 3 3..4 get 1\n 2 6..7 @1 get 1";
    caught(&Points, wrong, 3, "1 0..1 put 1\n 2 2..5 put 2\n 3 3..4 get 1\n 2 6..7 @0 get 1");
}

#[test]
fn a_session_may_lag_behind_others_writes() {
    accepted(&Points, "1 0..3 put 1\n 2 1..2 put 2\n 3 4..5 put 3\n 3 6..7 get 3\n 1 8..9 @0 get 1");
}

#[test]
fn an_eventual_read_of_what_never_was_is_caught() {
    caught(&Points, "1 0..1 put 1\n 2 2..3 put 2\n 3 4..5 ~ get 9", 2, "1 0..1 put 1\n 2 2..3 put 2\n 3 4..5 ~ get 1");
}

#[test]
fn an_eventual_read_of_the_future_is_caught() {
    caught(&Points, "3 0..1 ~ get 1\n 1 2..3 put 1", 0, "3 0..2 ~ get 1\n 1 1..3 put 1");
}

#[test]
fn two_creations_of_one_name_are_caught() {
    caught(&Catalog, "1 0..2 create a 1\n 2 1..3 create a 2", 1, "1 0..2 create a 1\n 2 1..3 create a taken");
}

#[test]
fn a_refusal_without_a_collection_is_caught() {
    caught(&Catalog, "1 0..1 create a taken", 0, "2 0..? create a 1\n 1 0..1 create a taken");
}

#[test]
fn a_collection_that_disappears_is_caught() {
    caught(&Catalog, "1 0..1 create a 1\n 2 2..3 get a missing", 1, "1 0..3 create a 1\n 2 2..3 get a missing");
}

#[test]
fn a_collection_that_changes_its_identity_is_caught() {
    let wrong = "1 0..? create a 0\n 2 1..2 get a 5\n 2 3..4 get a 6";
    caught(&Catalog, wrong, 2, "1 0..? create a 0\n 2 1..2 get a 5\n 2 3..4 get a 5");
    let again = "1 0..? create a 0\n 2 1..2 get a 5\n 3 0..? delete a\n 3 0..? create a 0\n 2 3..4 get a 6";
    accepted(&Catalog, again);
}

#[test]
fn an_identity_that_is_handed_out_twice_is_caught() {
    caught(&Catalog, "1 0..1 create a 1\n 1 2..3 create b 1", 1, "1 0..1 create a 1\n 1 2..3 create b 2");
}

#[test]
fn a_list_that_mixes_two_moments_is_caught() {
    let wrong = "1 0..1 create a 1\n 1 2..3 create b 2\n 2 0..4 list b=2";
    caught(&Catalog, wrong, 2, "1 0..1 create a 1\n 1 2..3 create b 2\n 2 0..4 list a=1");
}

#[test]
fn a_deletion_that_two_clients_did_is_caught() {
    let wrong = "1 0..1 create a 1\n 1 2..4 delete a\n 2 3..5 delete a";
    caught(&Catalog, wrong, 2, "1 0..1 create a 1\n 1 2..4 delete a\n 2 3..5 delete a missing");
}

#[test]
fn a_choice_among_unknown_operations_is_taken_back() {
    // 5 is 1 + 4 as well as 2 + 3, but only the latter leaves what makes it 6.
    let lost = "1 0..? add 1 0\n 2 0..? add 4 0\n 3 0..? add 2 0\n 4 0..? add 3 0\n";
    accepted(&Counter, &format!("{lost} 5 1..2 read 5\n 5 3..4 read 6"));
    let again = format!("{lost} 5 1..2 read 5\n 5 3..4 read 6\n 5 5..6 read 11");
    caught(&Counter, &again, 6, &again.replace("read 11", "read 10"));
}

#[test]
fn an_undecided_search_is_no_acceptance() {
    let text = "1 0..9 put 1\n 2 0..9 put 2\n 3 0..9 put 3\n 4 10..11 get 4\n 5 0..9 put 5";
    let verdict = check(&Points, &history::<Points>(text), 3);
    assert_eq!(verdict, Verdict::Undecided { key: "7".to_owned() });
}

#[test]
fn a_violation_of_one_key_is_found_beside_an_undecided_one() {
    let hard = "1 0..9 put 1\n 2 0..9 put 2\n 3 0..9 put 3\n 4 10..11 get 3\n 5 0..9 put 5\n";
    let text = format!("{hard} 1 20..21 put 1 at 8\n 2 0..1 put 4 at 8");
    let mut both = history::<Points>(&text);
    both.operations.extend(history::<Points>("1 0..1 get 9").operations);
    both.operations.last_mut().unwrap().input = sagitta_history::PointInput::Get { id: 9 };
    assert!(matches!(check(&Points, &both, 4), Verdict::Violation(violation) if violation.key == "9"));
}

#[test]
#[should_panic(expected = "1 reads after 0, which is not acknowledged")]
fn a_session_after_an_unknown_write_is_refused() {
    check(&Points, &history::<Points>("1 0..? put 1\n 1 2..3 @0 get 1"), BUDGET_STEPS);
}
