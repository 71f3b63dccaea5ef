//! The thinnest path: a cluster is founded, and a write is acknowledged and read back.

use sagitta_callers::{get, name, point, seed, told};
use sagitta_model::Consistency;

use crate::world::{CALL, Shape, World};

#[test]
fn a_cluster_is_founded_and_answers() {
    let seed = seed();
    let mut world = World::found(seed, Shape { coordinators: 3, shards: 3 });
    println!("founded after {:?}", world.now());
    world.create("points", 2, 3);
    let client = world.client(0, CALL);
    let records = world.ask(async move {
        let client = client();
        client.upsert(name("points"), vec![point(7, 9)]).await.expect("written");
        client.get(get("points", vec![7], Consistency::Strong)).await.expect("read")
    });
    assert_eq!(records.iter().map(told).collect::<Vec<_>>(), [(7, 9)]);
    println!("after {:?}: {:?}", world.now(), world.digest());
}
