//! Strangers at the port: whatever they do, others are served.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::host::{Keys, join};
use crate::stage::{Place, soon};
use runtime::tls;

const CROWD: usize = 100;

#[tokio::test]
async fn who_is_silent_or_slow_holds_nobody_up() {
    let place = Place::new();
    let running = place.start().await;
    let pin = place.credential().root_pin;
    let (mut silent, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..CROWD {
        silent.push(TcpStream::connect(running.address).await.unwrap());
        let (mut stream, _) = tls::connect(&[running.at()], tls::pinned_client(pin))
            .await
            .unwrap();
        stream
            .write_all(b"POST /v1/tokens HTTP/1.1\r\nHost: mesh\r\nX-Slow: ")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let token = running.token().await;
    join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let hosts: Vec<model::admin::HostView> = soon(place.operator().get("/v1/hosts")).await.unwrap();
    assert_eq!(hosts.len(), 1);
}

#[tokio::test]
async fn garbage_is_hung_up_on() {
    let place = Place::new();
    let running = place.start().await;
    for garbage in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0u8; 4096],
        &[0xff; 4096],
        b"SSH-2.0-x\r\n",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good an end as any.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn garbage_inside_tls_is_hung_up_on() {
    let place = Place::new();
    let running = place.start().await;
    let pin = place.credential().root_pin;
    for protocol in [None, Some(b"h2".to_vec())] {
        let mut config = (*tls::pinned_client(pin)).clone();
        config.alpn_protocols = protocol.into_iter().collect();
        let (mut stream, _) = tls::connect(&[running.at()], config.into()).await.unwrap();
        stream.write_all(&[0xfe; 2048]).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn stopping_waits_for_nobody_who_is_slow() {
    let place = Place::new();
    let running = place.start().await;
    let socket = place.settings().socket;
    let pin = place.credential().root_pin;
    let _silent = TcpStream::connect(running.address).await.unwrap();
    let (mut half, _) = tls::connect(&[running.at()], tls::pinned_client(pin))
        .await
        .unwrap();
    half.write_all(b"POST /v1/tokens HTTP/1.1\r\nHost: mesh\r\nContent-Length: 9\r\n\r\n{")
        .await
        .unwrap();
    let mut local = UnixStream::connect(&socket).await.unwrap();
    local
        .write_all(b"GET /v1/status HTTP/1.1\r\n")
        .await
        .unwrap();
    running.stop().await;
    assert!(!socket.exists());
}
