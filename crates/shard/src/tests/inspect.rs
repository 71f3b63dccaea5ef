use std::fs;

use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::{Fault, MemoryEngine};
use sagitta_env::Env;
use sagitta_model::IndexPolicy;

use super::in_folder;
use crate::testing::{database_dir, schema, small_options, spec};
use crate::{Engines, Home, Inspected, Severity, Shard, inspect};

#[test]
fn what_keeps_a_replica_from_opening_is_told_with_its_file_and_the_rest_is_shown() {
    in_folder(|dir| {
        let kv = MemoryEngine::new();
        let engines = Engines { kv: std::sync::Arc::new(kv.clone()), index: std::sync::Arc::new(ExactEngine) };
        let (env, _) = Env::seeded(1);
        let look = || inspect(dir, &engines, &env, &small_options().kv, true);
        let told = |found: &Inspected| -> Vec<_> {
            found.findings.iter().map(|finding| (finding.severity, finding.what.clone())).collect()
        };
        let absent = look();
        assert!(!absent.is_sound() && told(&absent)[0].1.contains("no database"), "{absent:?}");

        let own = spec(&schema(1, &IndexPolicy::ALL));
        drop(Shard::open(dir, own.clone(), engines.clone(), env.clone(), small_options()).expect("opens"));
        let sound = look();
        assert!(sound.is_sound() && sound.findings.is_empty(), "{sound:?}");
        assert_eq!((sound.collection, sound.shard), (Some(own.collection), Some(own.shard)));
        assert_eq!((sound.applied, sound.points, sound.unsealed), (Some((0, 0)), Some(0), 0));

        // The identity can be read, and nothing after it.
        kv.inject(&database_dir(dir), Fault::ReadDamage, 1);
        let damaged = look();
        assert!(!damaged.is_sound() && damaged.shard == Some(own.shard) && damaged.points.is_none(), "{damaged:?}");
        assert_eq!(told(&damaged).len(), 1, "one cause is told once: {damaged:?}");
        kv.heal(&database_dir(dir));

        fs::create_dir_all(dir.join("segments/3.tmp")).expect("made");
        let leftover = Home::at(dir).incoming(9);
        fs::create_dir_all(&leftover).expect("made");
        let found = look();
        assert!(found.is_sound() && found.findings.len() == 2, "{found:?}");
        assert!(found.findings.iter().all(|finding| finding.severity == Severity::Leftover));
        fs::write(dir.join("current"), "state-x\n").expect("written");
        let found = look();
        assert!(!found.is_sound() && told(&found)[0].1.contains("current"), "{found:?}");
    });
}
