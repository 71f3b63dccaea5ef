//! What the sockets of a connection are set to.

use std::net::{SocketAddr, TcpStream};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sagitta_consensus::{NodeId, Transport as _};

use super::rig::*;

/// Copies of this process's sockets that have `address` at either end.
fn sockets_of(address: SocketAddr) -> Vec<TcpStream> {
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    // Listed before the first copy is made: copies are descriptors, too.
    let listed: Vec<_> = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path()).collect();
    let mut found = Vec::new();
    for path in listed {
        let is_socket = std::fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let number = path.file_name().unwrap().to_string_lossy().parse().unwrap();
        // Other tests close theirs meanwhile.
        let Ok(copy) = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()) else { continue };
        let stream = TcpStream::from(copy);
        let ends = [stream.local_addr().ok(), stream.peer_addr().ok()];
        if is_socket && ends.iter().all(Option::is_some) && ends.contains(&Some(address)) {
            found.push(stream);
        }
    }
    found
}

#[tokio::test]
async fn neither_end_of_a_connection_waits_to_fill_packets() {
    let receiver = Receiver::start(identity(2)).await;
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    sender.transport.send(NodeId(2), vec![text(1)]);
    receiver.inbox.wait_for_messages(1).await;
    let sockets = sockets_of(receiver.listener.address());
    let of_sender = sockets.iter().filter(|socket| socket.peer_addr().unwrap() == receiver.listener.address()).count();
    assert!(of_sender > 0 && of_sender < sockets.len(), "both ends are there: {sockets:?}");
    for socket in sockets {
        assert!(socket.nodelay().unwrap(), "{socket:?}");
    }
}
