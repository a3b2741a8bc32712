//! Hosts of the fleet that do not keep to its manners: what they say on a session is theirs to choose,
//! and what the destination makes of it is not.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use model::rule::Protocol;

use crate::apps::App;
use crate::run;
use crate::world::{ORDERS, Plan, World};

/// Opens a session from the caller's host to the second.
async fn session(world: &World) -> SendRequest<Bytes> {
    let session = world.session(0, 1).await;
    let (sender, connection) = h2::client::handshake(session).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// Opens a stream to the service that carries bytes, or what it is said to.
async fn connect(
    sender: &mut SendRequest<Bytes>,
    carries: Option<&str>,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut request = Request::connect("mesh")
        .header("mesh-service", ORDERS)
        .header("mesh-call", "00000000000000ff");
    if let Some(carries) = carries {
        request = request.header("mesh-carries", carries);
    }
    let sent = sender.send_request(request.body(()).unwrap(), false);
    let (answer, to) = sent.unwrap();
    (answer.await.unwrap(), to)
}

/// Reads until this came.
async fn until(from: &mut RecvStream, what: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(what) {
        let data = from.data().await.unwrap().unwrap();
        from.flow_control().release_capacity(data.len()).unwrap();
        heard.push_str(std::str::from_utf8(&data).unwrap());
    }
    heard
}

#[test]
fn each_request_on_a_stream_is_decided_by_the_policy_of_its_moment() {
    run(async {
        let mut world = World::new(Plan::default());
        let app = App::start("one", world.app_listener(1));
        let mut sender = session(&world).await;
        let (opened, mut to) = connect(&mut sender, Some("http/1.1")).await;
        assert_eq!(opened.status(), 200);
        let mut from = opened.into_body();
        let request = Bytes::from_static(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n");
        to.send_data(request.clone(), false).unwrap();
        until(&mut from, "one").await;
        world.apply(Vec::new());
        to.send_data(request, false).unwrap();
        let heard = until(&mut from, "\r\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 403"), "{heard}");
        assert_eq!(app.requests(), 1);
    });
}

#[test]
fn a_stream_becomes_a_websocket_and_nothing_else() {
    run(async {
        let world = World::new(Plan::default());
        App::start("one", world.app_listener(1));
        let mut sender = session(&world).await;
        let (opened, mut to) = connect(&mut sender, Some("http/1.1")).await;
        let request = b"GET /headers HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\n\
            upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
        to.send_data(Bytes::from_static(request), false).unwrap();
        let heard = until(&mut opened.into_body(), "}").await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        for gone in ["h2c", "http2-settings"] {
            assert!(!heard.contains(gone), "{gone} in {heard}");
        }
    });
}

#[test]
fn bytes_reach_no_program_that_believes_what_requests_say() {
    for (protocol, status, reason) in [
        (Protocol::Http, 400, Some("bad-request")),
        (Protocol::Grpc, 400, Some("bad-request")),
        (Protocol::Tcp, 200, None),
    ] {
        run(async {
            let world = World::new(Plan {
                protocol,
                ..Plan::default()
            });
            let _app = App::start("one", world.app_listener(1));
            let mut sender = session(&world).await;
            let (answer, _to) = connect(&mut sender, None).await;
            assert_eq!(answer.status(), status, "{protocol:?}");
            let told = answer.headers().get("mesh-reason");
            assert_eq!(told.map(|it| it.to_str().unwrap()), reason, "{protocol:?}");
        });
    }
}
