//! Connections of bytes.

use std::time::Duration;

use model::rule::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::apps::{App, get};
use crate::run;
use crate::world::{Plan, World};

/// What takes no more for so long is full; were it not, a test would only see less.
const STANDSTILL: Duration = Duration::from_millis(300);

fn tcp(hosts: u8) -> Plan {
    Plan {
        protocol: Protocol::Tcp,
        hosts,
        ..Plan::default()
    }
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

#[test]
fn each_direction_has_its_own_end() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(tcp(hosts));
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut near = world.caller().dial().await;
            near.write_all(b"question").await.unwrap();
            near.shutdown().await.unwrap();
            let mut far = accepted(&listener).await;
            let mut heard = String::new();
            far.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "question");
            far.write_all(b"a long answer").await.unwrap();
            drop(far);
            heard.clear();
            near.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "a long answer");
        });
    }
}

#[test]
fn the_called_may_end_first_and_still_listen() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(tcp(hosts));
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut near = world.caller().dial().await;
            let mut far = accepted(&listener).await;
            far.write_all(b"welcome").await.unwrap();
            far.shutdown().await.unwrap();
            let mut heard = String::new();
            near.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "welcome");
            near.write_all(b"thanks").await.unwrap();
            near.shutdown().await.unwrap();
            heard.clear();
            far.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "thanks");
        });
    }
}

#[test]
fn a_connection_that_breaks_is_not_taken_for_one_that_ended() {
    for hosts in [1, 2] {
        run(async {
            let world = World::new(tcp(hosts));
            let listener = world.app_listener(usize::from(hosts) - 1);
            let mut near = world.caller().dial().await;
            near.write_all(b"x").await.unwrap();
            let mut far = accepted(&listener).await;
            assert_eq!(far.read_u8().await.unwrap(), b'x');
            socket2::SockRef::from(&far)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(far);
            assert!(near.read(&mut [0; 8]).await.is_err());
        });
    }
}

#[test]
fn who_stops_to_read_holds_up_only_itself() {
    run(async {
        let world = World::new(tcp(2));
        let listener = world.app_listener(1);
        let mut slow = world.caller().dial().await;
        slow.write_all(b"x").await.unwrap();
        let mut sender = accepted(&listener).await;
        assert_eq!(sender.read_u8().await.unwrap(), b'x');
        // Writes until nothing moves any more, and stays there.
        let stuck = tokio::spawn(async move {
            let piece = vec![0; 1 << 20];
            for _ in 0..256 {
                sender.write_all(&piece).await.unwrap();
            }
        });
        let mut other = world.caller().dial().await;
        other.write_all(b"y").await.unwrap();
        let mut far = accepted(&listener).await;
        assert_eq!(far.read_u8().await.unwrap(), b'y');
        far.write_all(b"z").await.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), b'z');
        // And once it reads, everything comes.
        let mut all = vec![0; 256 << 20];
        slow.read_exact(&mut all).await.unwrap();
        stuck.await.unwrap();
    });
}

/// Writes until nothing moves any more.
async fn fill(to: &mut TcpStream) {
    let piece = vec![0; 1 << 20];
    while matches!(timeout(STANDSTILL, to.write_all(&piece)).await, Ok(Ok(()))) {}
}

/// Returns whether it breaks off, after all that was under way.
async fn breaks(mut stream: TcpStream) -> bool {
    stream.read_to_end(&mut Vec::new()).await.is_err()
}

#[test]
fn a_connection_that_is_cut_breaks_off_though_nobody_reads() {
    for (hosts, cuts) in [(1, 0), (2, 0), (2, 1)] {
        for writes_to in ["the called", "the caller"] {
            run(async {
                let mut world = World::new(tcp(hosts));
                let listener = world.app_listener(usize::from(hosts) - 1);
                let mut near = world.caller().dial().await;
                near.write_all(b"x").await.unwrap();
                let mut far = accepted(&listener).await;
                assert_eq!(far.read_u8().await.unwrap(), b'x');
                let (mut writer, reader) = match writes_to {
                    "the called" => (near, far),
                    _ => (far, near),
                };
                fill(&mut writer).await;
                // Only one of the hosts has heard of it.
                world.apply_at(cuts, Vec::new());
                let what = format!("host {cuts} of {hosts} cuts what goes to {writes_to}");
                assert!(breaks(writer).await, "the writer, when {what}");
                assert!(breaks(reader).await, "the reader, when {what}");
            });
        }
    }
}

#[test]
fn an_endpoint_that_takes_no_connection_is_passed_over() {
    run(async {
        let world = World::new(tcp(3));
        // Nobody listens at the second host.
        let listener = world.app_listener(2);
        for _ in 0..4 {
            let mut near = world.caller().dial().await;
            near.write_all(b"hello").await.unwrap();
            let mut far = accepted(&listener).await;
            let mut heard = [0; 5];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
        }
    });
}

#[test]
fn auto_tells_requests_from_bytes() {
    run(async {
        let world = World::new(Plan {
            protocol: Protocol::Auto,
            ..Plan::default()
        });
        let listener = world.app_listener(1);
        let mut near = world.caller().dial().await;
        near.write_all(b"\0\0\0\x08binary").await.unwrap();
        let mut far = accepted(&listener).await;
        let mut heard = [0; 10];
        far.read_exact(&mut heard).await.unwrap();
        // A server that speaks first is waited for.
        let mut silent = world.caller().dial().await;
        let mut greeter = accepted(&listener).await;
        greeter.write_all(b"220 hello").await.unwrap();
        let mut greeting = [0; 9];
        silent.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 hello");
        App::start("one", listener);
        let (status, heard) = get(world.caller().dial().await, "/headers").await;
        assert_eq!(status, 200);
        assert!(heard.contains("mesh-caller"), "{heard}");
    });
}

#[test]
fn a_direct_dial_reaches_the_host_and_no_other() {
    run(async {
        let world = World::new(tcp(3));
        let listener = world.app_listener(1);
        let mut near = TcpStream::connect(world.caller().direct).await.unwrap();
        near.write_all(b"x").await.unwrap();
        let mut far = accepted(&listener).await;
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        assert_eq!(far.peer_addr().unwrap().ip(), world.hosts[1].address);
    });
}
