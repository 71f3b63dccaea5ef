//! The recall that was asked for, on the real embeddings of the sample, without any knob.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sagitta_client::{Client, Write};
use sagitta_model::{Change, IndexPolicy, Metric, NamedVectors, Object, Point, PointId, Schema, VectorSpec, Wait};

use crate::harness::{Server, data, name, query, searches};

const DIM: usize = 384;
const K: usize = 10;

fn sample(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(file)
}

/// The payload of a one- or two-dimensional .npy file in C order, after its header.
fn npy(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(sample(file)).expect("the sample is in the repository");
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[10 + header..].to_vec()
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| half(u16::from_le_bytes([b[0], b[1]]))).collect()
}

/// IEEE 754 binary16, without infinities, which the sample does not have.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * if exponent == 0 { fraction * 2f32.powi(-24) } else { (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15) }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

async fn load(client: &Client, policy: IndexPolicy) {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: DIM, metric: Metric::InnerProduct, index: policy });
    client.create_collection(name("sample"), schema).await.expect("created");
    let base = halves(&npy("text384-4k.base.f16.npy"));
    let point = |(row, vector): (usize, &[f32])| Point {
        id: PointId::Num(row as u64),
        vectors: NamedVectors::from([("v".to_owned(), vector.to_vec())]),
        payload: Object::new(),
    };
    let points: Vec<_> = base.chunks_exact(DIM).enumerate().map(point).collect();
    for chunk in points.chunks(1_000) {
        client.upsert(name("sample"), chunk.to_vec()).await.expect("written");
    }
    let last = Change::Upsert(vec![points[0].clone()]);
    let write = Write { collection: name("sample"), change: last, wait: Wait::Indexed, request_id: None };
    client.write(write).await.expect("indexed");
}

#[tokio::test]
async fn the_default_reaches_its_recall_with_every_policy() {
    let queries = floats(&npy("text384-4k.query.f32.npy"));
    let truth: Vec<i32> =
        npy("text384-4k.gt.ids.npy").chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let queries: Vec<_> = queries.chunks_exact(DIM).collect();
    let depth = truth.len() / queries.len();
    for policy in IndexPolicy::ALL {
        let temp = tempfile::tempdir().expect("temporary");
        let server = Server::start(&data(&temp));
        let client = server.client();
        load(&client, policy).await;
        let mut found = 0;
        for (query_vector, truth) in queries.iter().zip(truth.chunks_exact(depth)) {
            let answer = client.search(searches("sample", query(query_vector.to_vec(), K))).await.expect("answered");
            let hits = &answer.results[0].hits;
            assert_eq!(hits.len(), K, "{policy}");
            let near: HashSet<_> = truth[..K].iter().map(|row| PointId::Num(*row as u64)).collect();
            found += hits.iter().filter(|hit| near.contains(&hit.id)).count();
        }
        let recall = found as f64 / (queries.len() * K) as f64;
        println!("{policy}: recall@{K} {recall:.4}");
        assert!(recall >= 0.95, "{policy}: recall@{K} is {recall:.4}");
    }
}
