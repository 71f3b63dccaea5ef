//! What arrives, and in which order.

use bytes::Bytes;
use sagitta_consensus::{NodeId, Transport as _};
use sagitta_env::Env;

use super::super::{FRAME_BYTES, MAX_MESSAGE_BYTES};
use super::rig::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_once_and_in_the_order_of_sending() {
    const MESSAGES: usize = 30_000;
    let (env, _) = Env::seeded(seed(5));
    let receiver = Receiver::start(identity(2)).await;
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    let padding = vec![b'.'; 64 << 10];
    let message = |number: usize| {
        // Mostly small, some that fill a frame together with few others.
        let size = if env.random_below(50) == 0 { env.random_below(padding.len() as u64) } else { 0 };
        Bytes::from([number.to_string().as_bytes(), &padding[..size as usize]].concat())
    };
    let mut sent = Vec::new();
    while sent.len() < MESSAGES {
        let round = 1 + env.random_below(200) as usize;
        let messages: Vec<_> = (sent.len()..sent.len() + round).map(message).collect();
        until("room in the queue", || sender.transport.waiting(NodeId(2)).0 < 8_192).await;
        sent.extend(messages.iter().cloned());
        sender.transport.send(NodeId(2), messages);
    }
    receiver.inbox.wait_for_messages(sent.len()).await;
    assert!(receiver.inbox.read(|record| record.messages == sent), "the order is kept and nothing comes twice");
    until("all is counted", || receiver.stats().received == sent.len() as u64).await;
    let out = sender.stats();
    assert_eq!((out.sent, out.connects, out.reconnects, out.failures), (sent.len() as u64, 1, 0, 0));
}

#[tokio::test]
async fn messages_of_every_size_up_to_the_largest_arrive_and_a_larger_one_is_dropped_and_counted() {
    let receiver = Receiver::start(identity(2)).await;
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    let sizes = [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, MAX_MESSAGE_BYTES];
    for size in sizes {
        sender.transport.send(NodeId(2), vec![Bytes::from(vec![7; size])]);
    }
    sender.transport.send(NodeId(2), vec![Bytes::from(vec![7; MAX_MESSAGE_BYTES + 1])]);
    receiver.inbox.wait_for_messages(sizes.len()).await;
    receiver.inbox.read(|record| {
        let arrived: Vec<usize> = record.messages.iter().map(Bytes::len).collect();
        assert_eq!(arrived, sizes);
        assert!(record.messages.iter().all(|message| message.iter().all(|byte| *byte == 7)));
    });
    let stats = sender.stats();
    assert_eq!((stats.dropped_too_large, stats.dropped_queue_full, stats.failures), (1, 0, 0));
}

#[tokio::test]
async fn what_an_inbox_has_no_room_for_is_dropped_and_counted_and_the_stream_goes_on() {
    let receiver = Receiver::start(identity(2)).await;
    let sender = Sender::start(identity(1), brisk());
    sender.book.set(NodeId(2), receiver.uri());
    receiver.inbox.set_full(true);
    sender.transport.send(NodeId(2), vec![text(1), text(2)]);
    until("both are counted", || receiver.stats().dropped_inbox_full == 2).await;
    receiver.inbox.set_full(false);
    sender.transport.send(NodeId(2), vec![text(3)]);
    receiver.inbox.wait_for_messages(1).await;
    assert_eq!(receiver.inbox.read(|record| record.messages.clone()), [text(3)]);
    until("it is counted", || receiver.stats().received == 1).await;
    assert_eq!(sender.stats().connects, 1);
}

#[tokio::test]
async fn a_node_without_an_address_gets_nothing_and_a_removed_one_no_more() {
    let receiver = Receiver::start(identity(2)).await;
    let sender = Sender::start(identity(1), brisk());
    sender.transport.send(NodeId(2), vec![text(0)]);
    sender.book.set(NodeId(1), receiver.uri());
    sender.transport.send(NodeId(1), vec![text(0)]);
    assert_eq!(sender.stats().dropped_no_address, 2, "unknown, and itself");
    sender.book.set(NodeId(2), receiver.uri());
    sender.transport.send(NodeId(2), vec![text(1)]);
    receiver.inbox.wait_for_messages(1).await;
    sender.book.remove(NodeId(2));
    sender.inbox.wait("the connection ends", |record| record.unreachable == [NodeId(2)]).await;
    until("it is counted", || {
        sender.transport.send(NodeId(2), vec![text(2)]);
        sender.stats().dropped_no_address > 2
    })
    .await;
    sender.book.set(NodeId(2), receiver.uri());
    until("it is back", || {
        sender.transport.send(NodeId(2), vec![text(3)]);
        receiver.inbox.read(|record| record.messages.contains(&text(3)))
    })
    .await;
    let twos = receiver.inbox.read(|record| record.messages.iter().filter(|message| **message == text(2)).count());
    assert_eq!(twos, 0, "what was for a removed node is not kept for its return");
    let transport = sender.transport;
    sender.sending.stop().await;
    let before = receiver.inbox.read(|record| record.messages.len());
    transport.send(NodeId(2), vec![text(4)]);
    assert_eq!(transport.waiting(NodeId(2)), (0, 0));
    receiver.listener.stop().await;
    assert_eq!(receiver.inbox.read(|record| record.messages.len()), before);
}

#[tokio::test]
async fn what_is_sent_before_sending_starts_is_kept_for_it() {
    let receiver = Receiver::start(identity(2)).await;
    let book = super::super::AddressBook::default();
    book.set(NodeId(2), receiver.uri());
    let (transport, outbound) = super::super::outbound(&Env::real(), identity(1), book, Default::default());
    transport.send(NodeId(2), vec![text(1)]);
    let _sending = outbound.start(std::sync::Arc::new(Recorder::new()));
    receiver.inbox.wait_for_messages(1).await;
}
