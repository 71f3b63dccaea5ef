//! What is written down while clients run, on disk, and in the message of a failed test.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

use sagitta_history::{
    BUDGET_STEPS, Catalog, Freshness, History, Outcome, PointInput, PointOutput, Points, Recorder, Verdict, check,
    require,
};

use crate::notation::history;

#[test]
fn threads_that_share_a_recorder_and_a_map_are_accepted() {
    let recorder = Recorder::new();
    let map: Mutex<BTreeMap<u64, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for client in 0..4_u64 {
            let (recorder, map) = (recorder.clone(), &map);
            scope.spawn(move || {
                for n in 0..500 {
                    let id = n % 3;
                    if (n + client) % 2 == 0 {
                        let value = client * 1_000 + n;
                        let call = recorder.call(client, PointInput::Upsert { id, value });
                        map.lock().unwrap().insert(id, value);
                        call.ok(PointOutput::Done);
                    } else {
                        let call = recorder.call(client, PointInput::Get { id });
                        let found = map.lock().unwrap().get(&id).copied();
                        call.ok(PointOutput::Found(found));
                    }
                }
            });
        }
    });
    let history = recorder.history();
    assert_eq!(history.operations.len(), 2_000);
    let verdict = check(&Points, &history, BUDGET_STEPS);
    assert!(matches!(verdict, Verdict::Linearizable { .. }), "{verdict:?}");
}

#[test]
fn an_operation_that_is_dropped_is_unknown() {
    let recorder: Recorder<PointInput, PointOutput> = Recorder::new();
    drop(recorder.call(1, PointInput::Delete { id: 1 }));
    recorder.call(1, PointInput::Delete { id: 1 }).unknown();
    recorder.call(1, PointInput::Delete { id: 1 }).failed();
    let write = recorder.call(1, PointInput::Delete { id: 1 }).ok(PointOutput::Done);
    let open = recorder.call_with(2, PointInput::Get { id: 1 }, Freshness::Session(write));
    let operations = recorder.history().operations;
    let outcomes: Vec<_> = operations.iter().map(|operation| operation.outcome.clone()).collect();
    let done = Outcome::Ok { returned: 5, output: PointOutput::Done };
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Unknown, Outcome::Failed, done, Outcome::Unknown]);
    assert_eq!(operations[4].freshness, Freshness::Session(3));
    open.failed();
}

#[test]
fn a_clock_that_stands_still_or_goes_back_does_not_change_the_order() {
    let times = Mutex::new(vec![100, 100, 40, 300]);
    let recorder = Recorder::with_clock(move || times.lock().unwrap().remove(0));
    recorder.call(1, PointInput::Get { id: 1 }).ok(PointOutput::Found(None));
    recorder.call(2, PointInput::Get { id: 1 }).ok(PointOutput::Found(None));
    let times: Vec<_> =
        recorder.history().operations.iter().map(|operation| (operation.called, operation.returned())).collect();
    assert_eq!(times, [(100, Some(101)), (102, Some(300))]);
}

/// A file of the format, as a failed test of some day left it.
const GOLDEN: &str = r#"{"client":1,"called":0,"input":{"Upsert":{"id":7,"value":1}},"freshness":"Strong","outcome":{"Ok":{"returned":1,"output":"Done"}}}
{"client":1,"called":2,"input":{"Delete":{"id":7}},"freshness":"Strong","outcome":"Unknown"}
{"client":2,"called":3,"input":{"Upsert":{"id":7,"value":2}},"freshness":"Strong","outcome":"Failed"}
{"client":2,"called":4,"input":{"Get":{"id":7}},"freshness":{"Session":0},"outcome":{"Ok":{"returned":5,"output":{"Found":null}}}}
"#;

#[test]
fn a_history_on_disk_is_a_line_of_json_for_each_operation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let written = history::<Points>("1 0..1 put 1\n 1 2..? delete\n 2 3..! put 2\n 2 4..5 @0 get -");
    written.write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN);
    assert_eq!(History::read(&path).unwrap(), written);
    std::fs::write(&path, format!("{GOLDEN}nonsense\n")).unwrap();
    let error = History::<PointInput, PointOutput>::read(&path).unwrap_err().to_string();
    assert!(error.contains("history.jsonl:5: expected ident"), "{error}");
}

#[test]
fn a_violation_is_explained_as_lines_in_time() {
    let history = history::<Points>(
        "1 10..20 put 1\n 2 30..80 put 2\n 3 32..? delete\n 3 40..50 get 2\n 2 55..70 get 1\n 1 55..57 put 5 at 8",
    );
    let Verdict::Violation(violation) = check(&Points, &history, BUDGET_STEPS) else { panic!("accepted") };
    let expected = "\
not linearizable: key 7, operation 4
  client 2 Get { id: 7 } -> Found(Some(1))
fits no state that it can have met: Some(2)
  client 1 #0 Upsert { id: 7, value: 1 } -> Done  ├┤        10..20
  client 2 #1 Upsert { id: 7, value: 2 } -> Done    ├────┤  30..80
> client 2 #4 Get { id: 7 } -> Found(Some(1))          ├┤   55..70
  client 3 #3 Get { id: 7 } -> Found(Some(2))        ├┤     40..50
";
    assert_eq!(violation.explain(&history), expected);
}

#[test]
fn a_failed_requirement_leaves_the_history_in_the_file_that_it_names() {
    let wrong = history::<Catalog>("1 0..1 create a 1\n 2 2..? delete b\n 2 4..5 list");
    let panic = catch_unwind(AssertUnwindSafe(|| require(&Catalog, &wrong, "lists, seed 3"))).unwrap_err();
    let text = panic.downcast_ref::<String>().expect("a message");
    assert!(text.starts_with("lists, seed 3: not linearizable: key (), operation 2\n"), "{text}");
    let path = Path::new(text.rsplit_once("the history is in ").expect("a path").1);
    assert_eq!(History::read(path).unwrap(), wrong);
    std::fs::remove_file(path).unwrap();
    require(&Catalog, &history::<Catalog>("1 0..1 create a 1\n 2 4..5 list a=1"), "right");
}
