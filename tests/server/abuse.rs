//! Callers that mean harm, or are broken, do not keep honest ones out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use sagitta_client::{Client, ClientConfig};
use sagitta_model::{ErrorKind, Metric, Point, PointId};

use crate::harness::{Server, all_points, data, get, name, point, schema};

const CONNECTIONS: usize = 300;

#[tokio::test]
async fn silent_and_babbling_connections_do_not_keep_a_caller_out() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("c"), schema(2, Metric::L2)).await.expect("created");
    let address = server.endpoint.trim_start_matches("http://");
    let connect = || TcpStream::connect(address).expect("accepted");
    let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
    for _ in 0..CONNECTIONS {
        let mut babbling = connect();
        babbling.write_all(b"GET / HTTP/1.1\r\nHost: sagitta\r\n\r\n").expect("sent");
        // Ends: the server says goodbye and closes.
        let _ = babbling.read_to_end(&mut Vec::new());
    }
    let fresh = server.client();
    fresh.upsert(name("c"), vec![point(1, vec![1.0, 0.0], 1)]).await.expect("written");
    assert_eq!(fresh.get(get("c", vec![PointId::Num(1)])).await.expect("read").len(), 1);
    drop(silent);
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The error of the GOAWAY that a server sends before it closes.
fn goodbye(connection: &mut TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        connection.read_exact(&mut payload).ok()?;
        if head[3] == GOAWAY {
            return Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
        }
    }
}

#[tokio::test]
async fn whoever_resets_calls_as_fast_as_they_are_made_is_sent_away() {
    const CALLS: u32 = 200;
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let address = server.endpoint.trim_start_matches("http://");
    // POST, http and a path, from HPACK's static table (RFC 7541, appendix A).
    let headers = [0x83, 0x86, 0x84];
    let calls = (0..CALLS).map(|call| 2 * call + 1).flat_map(|stream| {
        let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &headers), reset].concat()
    });
    let flood = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[]), calls.collect()].concat();
    let mut connection = TcpStream::connect(address).expect("accepted");
    connection.write_all(&flood).expect("sent");
    assert_eq!(goodbye(&mut connection), Some(ENHANCE_YOUR_CALM));
    let client = server.client();
    client.create_collection(name("c"), schema(2, Metric::L2)).await.expect("others do not notice");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_the_limit_and_the_connection_goes_on() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let mut config = ClientConfig::new(server.endpoint.clone());
    config.max_message_bytes = 1 << 30;
    let client = Client::connect(config).expect("a valid endpoint");
    client.create_collection(name("c"), schema(2, Metric::L2)).await.expect("created");
    let text = "x".repeat(1 << 19);
    let large = |id| {
        let mut point = point(id, vec![1.0, 0.0], 1);
        point.payload.insert("text".into(), text.as_str().into());
        point
    };
    let points: Vec<Point> = (0..150).map(large).collect();
    let error = client.upsert(name("c"), points).await.expect_err("75 MiB in one message");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error:?}");
    assert!(error.message.contains("67108864"), "{error}");
    client.upsert(name("c"), vec![large(1)]).await.expect("written");
    assert_eq!(all_points(&client, "c", None).await.len(), 1);
}
