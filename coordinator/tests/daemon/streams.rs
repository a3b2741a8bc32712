//! The hosts' streams: what a member is told, and how streams end.

use model::control::{FromHost, ToHost};
use model::map::MapDelta;
use model::wire::generated as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::host::{Host, Keys, Stream, join, stranger};
use crate::stage::{Place, Running, soon};

async fn member(running: &Running, name: &str, seed: u8) -> Host {
    let token = running.token().await;
    join(&running.at(), &token, name, Keys::new(seed))
        .await
        .unwrap()
}

async fn next_map(stream: &mut Stream) -> MapDelta {
    let map = |message| match message {
        ToHost::Map(delta) => Some(delta),
        _ => None,
    };
    stream.find(map).await
}

#[tokio::test]
async fn a_member_is_welcomed_with_a_map_that_it_can_verify() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    let ToHost::Welcome(welcome) = stream.next().await.unwrap().unwrap() else {
        panic!("a hello is answered by a welcome")
    };
    assert_eq!(welcome.observed, Some(running.address.ip()));
    let map = next_map(&mut stream).await;
    assert_eq!(map.base, None);
    let record = host.anchors.verify_record(&map.record.unwrap()).unwrap();
    assert_eq!(record.host, host.enrolled.host);
    let (head, _) = host.anchors.verify_slice(&map.policy.unwrap()).unwrap();
    assert_eq!(head.version.0, 1);
}

#[tokio::test]
async fn members_hear_of_each_other() {
    let place = Place::new();
    let running = place.start().await;
    let first = member(&running, "vm-1", 1).await;
    let mut stream = first.open(&running.at()).await;
    assert!(next_map(&mut stream).await.peers.is_empty());
    let second = member(&running, "vm-2", 2).await;
    let delta = next_map(&mut stream).await;
    let peer = first.anchors.verify_record(&delta.peers[0].record).unwrap();
    assert_eq!(
        (peer.host, peer.name.as_str()),
        (second.enrolled.host, "vm-2")
    );
}

#[tokio::test]
async fn without_a_certificate_there_is_no_stream() {
    let place = Place::new();
    let running = place.start().await;
    let mut client = stranger(&running.at(), running.token().await.pin).await;
    let (_outgoing, queue) = mpsc::channel(1);
    let refused = soon(client.sync(ReceiverStream::<pb::FromHost>::new(queue)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("meshctl join"), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_key_of_the_record() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    stream.say(host.renewal("vm-1")).await;
    let certificate = |message| match message {
        ToHost::Certificate(answer) => Some(answer),
        _ => None,
    };
    let chain = stream.find(certificate).await.unwrap();
    let leaf = |chain: &[Vec<u8>]| trust::certificate::facts(&chain[0]).unwrap();
    let (old, new) = (leaf(&host.enrolled.certificate_chain), leaf(&chain));
    assert_eq!(
        (new.spiffe, new.tls_key_hash),
        (old.spiffe, old.tls_key_hash)
    );
    assert_ne!(chain[0], host.enrolled.certificate_chain[0]);
}

#[tokio::test]
async fn nonsense_ends_the_stream_with_a_reason() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    next_map(&mut stream).await;
    stream.outgoing.send(pb::FromHost::default()).await.unwrap();
    let ended = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::InvalidArgument, "{ended:?}");
    // And the host may come back.
    next_map(&mut host.open(&running.at()).await).await;
}

#[tokio::test]
async fn a_stream_that_says_no_hello_first_is_sent_away() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.connect(&running.at()).await;
    stream.say(FromHost::Ping(1)).await;
    let message = stream.next().await.unwrap().unwrap();
    assert!(matches!(message, ToHost::Goodbye(_)), "{message:?}");
    assert_eq!(stream.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_newer_stream_of_a_host_ends_the_older() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut older = host.open(&running.at()).await;
    next_map(&mut older).await;
    let mut newer = host.open(&running.at()).await;
    next_map(&mut newer).await;
    let goodbye = |message| matches!(message, ToHost::Goodbye(_)).then_some(());
    older.find(goodbye).await;
    assert_eq!(older.next().await.unwrap(), None);
    newer.say(FromHost::Ping(7)).await;
    newer
        .find(|message| (message == ToHost::Pong(7)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_removed_host_is_told_so() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    next_map(&mut stream).await;
    let _: model::admin::HostView = soon(running.local().delete("/v1/hosts/vm-1"))
        .await
        .unwrap();
    let goodbye = |message| match message {
        ToHost::Goodbye(goodbye) => Some(goodbye),
        _ => None,
    };
    assert!(stream.find(goodbye).await.tombstone.is_some());
    stream.is_cut_off().await;
    // Its certificate is good still, and opens nothing.
    let mut again = host.connect(&running.at()).await;
    assert!(again.find(goodbye).await.tombstone.is_some());
}

#[tokio::test]
async fn who_is_not_let_in_does_not_keep_its_connection() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let _: model::admin::HostView = soon(running.local().delete("/v1/hosts/vm-1"))
        .await
        .unwrap();
    for _ in 0..10 {
        let mut stream = host.connect(&running.at()).await;
        while stream.next().await.unwrap().is_some() {}
        stream.is_cut_off().await;
    }
}

#[tokio::test]
async fn a_host_that_hangs_up_is_offline() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    next_map(&mut stream).await;
    assert_eq!(running.status().await.hosts_online, 1);
    drop(stream);
    soon(async { while running.status().await.hosts_online > 0 {} }).await;
}

#[tokio::test]
async fn a_stopping_coordinator_takes_leave() {
    let place = Place::new();
    let running = place.start().await;
    let host = member(&running, "vm-1", 1).await;
    let mut stream = host.open(&running.at()).await;
    next_map(&mut stream).await;
    running.stop().await;
    let goodbye = |message| match message {
        ToHost::Goodbye(goodbye) => Some(goodbye),
        _ => None,
    };
    let goodbye = stream.find(goodbye).await;
    assert!(
        goodbye.tombstone.is_none() && !goodbye.retry_after.is_zero(),
        "{goodbye:?}"
    );
}
