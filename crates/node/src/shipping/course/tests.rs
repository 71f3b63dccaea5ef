use sagitta_consensus::Manifest;

use super::*;

const LEADER: NodeId = NodeId(2);
const SEAL: Work = Work::Seal { first: 100 };
const MERGE: Work = Work::Merge { rows: 50 };
/// Between two looks.
const ROUND: Duration = Duration::from_millis(500);

/// A replica that looks and looks.
struct Replica {
    course: Course,
    now: Duration,
    leadership: Leadership,
    segments: BTreeSet<SegmentName>,
    applied: u64,
    urgent: bool,
    dir: tempfile::TempDir,
}

impl Replica {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (segments, leadership) = (BTreeSet::new(), Leadership::Of(LEADER));
        let now = Duration::from_secs(1_000);
        Self { course: Course::default(), now, leadership, segments, applied: 1_000, urgent: false, dir }
    }

    /// Looks once, a round after the last time.
    fn look(&mut self, work: &[Work]) -> (Vec<Work>, Next) {
        self.now += ROUND;
        let (leadership, urgent, applied) = (self.leadership, self.urgent, self.applied);
        self.course.look(&Outlook { leadership, urgent, segments: self.segments.clone(), applied, work }, self.now)
    }

    /// Looks until some work is to be done here, answering each question; how long that took, in whole rounds.
    fn patience(&mut self, work: Work, mut answer: impl FnMut() -> Option<Parts>) -> Duration {
        let began = self.now;
        loop {
            let (left, next) = self.look(&[work]);
            if left.is_empty() {
                return self.now - began;
            }
            match next {
                Next::Ask(of) => self.course.answered(of, answer(), self.now),
                Next::Fetch(..) => panic!("fetches {next:?}"),
                Next::Nothing => {}
            }
        }
    }

    fn part(&self, name: SegmentName, rows: u64, last: u64) -> Part {
        Part { manifest: Manifest::of(self.dir.path(), name).expect("a manifest"), rows, last }
    }

    fn arrived(&self, part: &Part, kind: Kind) -> Arrived {
        let folder = Folder::new(self.dir.path().join("arrived"));
        fs::create_dir_all(folder.path()).expect("made");
        Arrived { part: part.clone(), kind, folder }
    }
}

fn says(working: bool, parts: &[Part]) -> Option<Parts> {
    Some(Parts { leads: true, working, parts: parts.to_vec() })
}

#[test]
fn a_leader_that_is_at_work_is_waited_for_longer_than_one_that_is_idle_or_silent_or_does_not_lead() {
    let patience = |work, answer: Option<Parts>| Replica::new().patience(work, || answer.clone()).as_secs();
    for answer in [None, says(false, &[]), Some(Parts { leads: false, working: true, parts: Vec::new() })] {
        assert_eq!((patience(SEAL, answer.clone()), patience(MERGE, answer.clone())), (15, 15), "{answer:?}");
    }
    let at_work = says(true, &[]);
    assert_eq!((patience(SEAL, at_work.clone()), patience(MERGE, at_work)), (120, 3600));
}

#[test]
fn a_segment_that_helps_is_fetched_once_and_the_work_waits_for_it() {
    for (work, kind, other) in [(SEAL, Kind::Seal, MERGE), (MERGE, Kind::Merge, SEAL)] {
        let mut replica = Replica::new();
        let useless = replica.part(1, 49, 99);
        let part = match kind {
            Kind::Seal => replica.part(2, 49, 100),
            Kind::Merge => replica.part(2, 50, 99),
        };
        assert_eq!(replica.look(&[work]), (vec![work], Next::Ask(LEADER)));
        replica.course.answered(LEADER, says(false, &[useless, part.clone()]), replica.now);
        assert_eq!(replica.look(&[work]), (vec![work], Next::Fetch(LEADER, kind, part.clone())));
        let wanted = replica.course.begin(2);
        for _ in 0..100 {
            assert_eq!(replica.look(&[work]), (vec![work], Next::Nothing), "it is on its way");
        }
        replica.course.ended(2, kind, Some(replica.arrived(&part, kind)));
        assert!(wanted.upgrade().is_none());
        assert_eq!(replica.look(&[work]), (vec![work], Next::Nothing), "it is here");
        let arrived = replica.course.take_arrived().expect("it has arrived");
        assert_eq!((arrived.part, arrived.kind), (part.clone(), kind));
        replica.course.done(kind);
        replica.segments.insert(2);
        replica.course.answered(LEADER, says(false, std::slice::from_ref(&part)), replica.now);
        replica.look(&[]);
        replica.segments.clear();
        for _ in 0..10 {
            assert!(!matches!(replica.look(&[other]).1, Next::Fetch(..)), "none of them helps");
            assert!(!matches!(replica.look(&[work]).1, Next::Fetch(..)), "it was here");
        }
    }
}

#[test]
fn a_segment_with_rows_that_are_not_applied_here_is_waited_for_no_longer_than_an_idle_leader() {
    let mut replica = Replica::new();
    let part = replica.part(2, 1_000, 1_001);
    assert_eq!(replica.patience(SEAL, || says(false, std::slice::from_ref(&part))).as_secs(), 15);
    replica.course.done(Kind::Seal);
    replica.applied = 1_001;
    replica.course.answered(LEADER, says(false, std::slice::from_ref(&part)), replica.now);
    assert_eq!(replica.look(&[SEAL]).1, Next::Fetch(LEADER, Kind::Seal, part));
}

#[test]
fn a_worker_that_was_busy_elsewhere_has_not_waited_and_asks_again_before_it_builds() {
    for work in [SEAL, MERGE] {
        let mut replica = Replica::new();
        replica.look(&[work]);
        replica.course.answered(LEADER, says(true, &[]), replica.now);
        for _ in 0..10 {
            replica.now += Duration::from_secs(3_600);
            let (left, next) = replica.look(&[work]);
            assert_eq!((left, next), (vec![work], Next::Ask(LEADER)));
            replica.course.answered(LEADER, says(true, &[]), replica.now);
        }
    }
}

#[test]
fn work_of_one_kind_that_is_done_leaves_the_patience_for_the_other() {
    let mut replica = Replica::new();
    let began = replica.now;
    while replica.look(&[SEAL, MERGE]).0.contains(&MERGE) {
        replica.course.answered(LEADER, says(false, &[]), replica.now);
        replica.course.done(Kind::Seal);
        assert!(replica.now - began < Duration::from_secs(60), "the merge starves");
    }
    assert_eq!(replica.now - began, Duration::from_secs(15) + ROUND);
    assert_eq!(replica.look(&[SEAL, MERGE]).0, [SEAL]);
}

#[test]
fn fetches_that_fail_are_repeated_a_little_and_then_the_work_is_done_here() {
    let mut replica = Replica::new();
    let part = replica.part(2, 50, 100);
    for _ in 0..3 {
        let (left, _) = replica.look(&[SEAL, MERGE]);
        assert_eq!(left, [SEAL, MERGE]);
        replica.course.answered(LEADER, says(false, std::slice::from_ref(&part)), replica.now);
        assert_eq!(replica.look(&[SEAL, MERGE]).1, Next::Fetch(LEADER, Kind::Seal, part.clone()));
        replica.course.begin(2);
        replica.course.ended(2, Kind::Seal, None);
    }
    assert_eq!(replica.look(&[SEAL, MERGE]).0, [MERGE], "the other kind has not failed");
    replica.course.done(Kind::Seal);
    assert_eq!(replica.look(&[SEAL, MERGE]).0, [SEAL, MERGE], "what comes next is tried anew");
    replica.course.in_vain(Kind::Seal, 2);
    assert_eq!(replica.look(&[SEAL, MERGE]).0, [MERGE], "one that came and was of no use");
    replica.course.answered(LEADER, says(false, &[part]), replica.now);
    assert!(!matches!(replica.look(&[SEAL, MERGE]).1, Next::Fetch(..)), "it is not fetched again");
}

#[test]
fn a_fetch_that_was_given_up_brings_nothing() {
    let replica = Replica::new();
    let (part, mut course) = (replica.part(2, 50, 100), Course::default());
    let arrived = replica.arrived(&part, Kind::Seal);
    let folder = arrived.folder.path().to_path_buf();
    course.ended(2, Kind::Seal, Some(arrived));
    assert!(course.take_arrived().is_none());
    assert!(!folder.exists(), "what is of no use is not kept");
    course.put_back(replica.arrived(&part, Kind::Seal));
    assert!(folder.exists());
    drop(course);
    assert!(!folder.exists());
}

#[test]
fn the_leader_builds_at_once_and_another_leader_is_asked_anew() {
    let mut replica = Replica::new();
    replica.look(&[SEAL]);
    replica.course.answered(LEADER, None, replica.now);
    replica.leadership = Leadership::Of(NodeId(3));
    assert_eq!(replica.look(&[SEAL]), (vec![SEAL], Next::Ask(NodeId(3))));
    assert_eq!(replica.patience(SEAL, || says(true, &[])).as_secs(), 119, "the time before counts");
    for (leadership, urgent) in [(Leadership::Own, false), (Leadership::Of(LEADER), true)] {
        let mut replica = Replica { leadership, urgent, ..Replica::new() };
        assert_eq!(replica.look(&[SEAL]), (vec![], Next::Nothing));
    }
    let mut replica = Replica { leadership: Leadership::Unknown, ..Replica::new() };
    assert_eq!(replica.patience(SEAL, || None).as_secs(), 5);
}
