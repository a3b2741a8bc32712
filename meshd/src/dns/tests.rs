//! The server as askers meet it: real datagrams and streams on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use hickory_proto::op::MessageType;
use hickory_proto::rr::rdata::A;
use hickory_proto::serialize::binary::BinEncodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use zone::tests::{fleet, name};

async fn serve(names: Names, forwarder: Option<Arc<Forwarder>>) -> DnsServer {
    let responder = Responder {
        names: Arc::new(ArcSwap::from_pointee(names)),
        forwarder,
        tally: Arc::default(),
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    DnsServer::start(anywhere, responder).await.unwrap()
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

async fn exchange(server: &DnsServer, question: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(question, server.address()).await.unwrap();
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer).await.unwrap();
    answer.truncate(length);
    answer
}

async fn ask(server: &DnsServer, question: &Message) -> Message {
    let bytes = exchange(server, &question.to_bytes().unwrap()).await;
    Message::from_vec(&bytes).unwrap()
}

async fn ask_by_tcp(server: &DnsServer, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let bytes = question.to_bytes().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn with_edns(mut question: Message, version: u8, bytes: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_version(version).set_max_payload(bytes);
    edns.set_dnssec_ok(true);
    question.edns = Some(edns);
    question
}

/// A service at so many hosts that its addresses fill datagrams.
fn crowd(hosts: u32) -> Names {
    let small = fleet();
    let overlay = small.overlay().unwrap();
    let mut orders = small.lookup("orders").unwrap().clone();
    orders.addresses = (0..hosts).map(|it| overlay.nth_host(it).unwrap()).collect();
    let entries = orders.addresses.clone().into_iter().map(|addresses| {
        let entry = agent::NameEntry {
            kind: agent::NameKind::Host,
            addresses: vec![addresses],
        };
        (
            format!("host-{}", addresses.v4.to_bits()).parse().unwrap(),
            entry,
        )
    });
    let all: Vec<_> = entries
        .chain([("orders".parse().unwrap(), orders)])
        .collect();
    Names::new("mesh.internal", overlay, all)
}

#[tokio::test]
async fn an_answer_is_authoritative_and_repeats_the_question_as_it_was_asked() {
    let server = serve(fleet(), None).await;
    let answer = ask(&server, &question("AlPha.mesh.Internal.", RecordType::A)).await;
    assert!(answer.metadata.authoritative && !answer.metadata.recursion_available);
    assert!(
        answer.queries[0]
            .name
            .eq_case(&name("AlPha.mesh.Internal."))
    );
    assert!(
        answer.answers[0]
            .name
            .eq_case(&name("AlPha.mesh.Internal."))
    );
    assert_eq!(answer.edns, None, "nobody who does not know it gets EDNS");
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_comes_by_tcp() {
    let server = serve(crowd(40), None).await;
    let plain = question("orders.mesh.internal.", RecordType::A);
    let cut = ask(&server, &plain).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = ask_by_tcp(&server, &plain).await;
    assert_eq!(
        (whole.metadata.truncation, whole.answers.len()),
        (false, 40)
    );
    // 40 records of 16 bytes fit where more than 512 are allowed.
    let roomy = ask(&server, &with_edns(plain.clone(), 0, 4096)).await;
    assert_eq!(
        (roomy.metadata.truncation, roomy.answers.len()),
        (false, 40)
    );
    // Nobody gets more than passes everywhere, whatever they ask for.
    let crowd = serve(crowd(100), None).await;
    let cut = ask(&crowd, &with_edns(plain, 0, u16::MAX)).await;
    assert!(cut.metadata.truncation);
    assert!(cut.edns.is_some(), "a cut answer still has EDNS");
}

#[tokio::test]
async fn additional_addresses_are_left_out_before_answers_are() {
    let server = serve(crowd(8), None).await;
    let srv = question("_orders._tcp.mesh.internal.", RecordType::SRV);
    let short = ask(&server, &srv).await;
    assert_eq!((short.metadata.truncation, short.answers.len()), (false, 8));
    assert!(short.additionals.is_empty());
    let whole = ask_by_tcp(&server, &srv).await;
    assert_eq!(whole.additionals.len(), 16);
}

#[tokio::test]
async fn edns_is_answered_with_edns_and_an_unknown_version_is_said() {
    let server = serve(fleet(), None).await;
    let plain = question("alpha.mesh.internal.", RecordType::A);
    let answer = ask(&server, &with_edns(plain.clone(), 0, 4096)).await;
    let edns = answer.edns.unwrap();
    assert_eq!(
        (edns.version(), edns.max_payload()),
        (0, DATAGRAM_BYTES_MAX)
    );
    assert!(edns.flags().dnssec_ok);
    let answer = ask(&server, &with_edns(plain, 7, 4096)).await;
    // On the wire it is one number with BADSIG.
    let code = u16::from(answer.metadata.response_code);
    assert_eq!(code, u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn what_is_no_plain_question_is_told_so() {
    let server = serve(fleet(), None).await;
    let plain = question("alpha.mesh.internal.", RecordType::A);

    let mut update = plain.clone();
    update.metadata.op_code = OpCode::Update;
    let answer = ask(&server, &update).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);

    let mut two = plain.clone();
    two.add_query(Query::query(name("beta.mesh.internal."), RecordType::A));
    let answer = ask(&server, &two).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);

    let transfer = question("mesh.internal.", RecordType::AXFR);
    let answer = ask_by_tcp(&server, &transfer).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);

    let mut cut = plain.to_bytes().unwrap();
    cut.truncate(20);
    let answer = Message::from_vec(&exchange(&server, &cut).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
}

/// An upstream that gives every name one address, and tells what it was asked.
async fn upstream() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut memory = [0; 4096];
        while let Ok((length, asker)) = socket.recv_from(&mut memory).await {
            let question = Message::from_vec(&memory[..length]).unwrap();
            let asked = question.queries[0].clone();
            tell.send(asked.name.to_ascii()).unwrap();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.metadata.recursion_available = true;
            answer.add_query(asked.clone());
            if asked.name == name("nothing.example.") {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.push(zone::soa(&name("example.")));
            } else if asked.name == name("alias.example.") {
                let target = hickory_proto::rr::rdata::CNAME(name("secret.mesh.internal."));
                let alias = Record::from_rdata(asked.name, 300, RData::CNAME(target));
                answer.answers.push(alias);
            } else {
                let data = RData::A(A::new(192, 0, 2, 1));
                answer
                    .answers
                    .push(Record::from_rdata(asked.name, 300, data));
            }
            let bytes = answer.to_bytes().unwrap();
            socket.send_to(&bytes, asker).await.unwrap();
        }
    });
    (port, told)
}

fn all_of(told: &mut tokio::sync::mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| told.try_recv().ok()).collect()
}

fn forwarder(port: u16) -> Arc<Forwarder> {
    let forwarder = Forwarder::default();
    forwarder.set_upstreams_at(vec![(IpAddr::from(Ipv4Addr::LOCALHOST), port)]);
    Arc::new(forwarder)
}

#[tokio::test]
async fn other_names_are_asked_once_of_the_hosts_resolvers() {
    let (port, mut told) = upstream().await;
    let server = serve(fleet(), Some(forwarder(port))).await;
    for asked in ["www.example.", "WWW.Example."] {
        let answer = ask(&server, &question(asked, RecordType::A)).await;
        assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
        assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
    }
    assert_eq!(all_of(&mut told), ["www.example."]);
    for _ in 0..2 {
        let answer = ask(&server, &question("nothing.example.", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(all_of(&mut told), ["nothing.example."]);
}

#[tokio::test]
async fn no_name_of_the_mesh_is_asked_of_others() {
    let (port, mut told) = upstream().await;
    let server = serve(fleet(), Some(forwarder(port))).await;
    for asked in [
        "nobody.mesh.internal.",
        "a.b.c.mesh.internal.",
        "MESH.internal.",
        "9.9.64.100.in-addr.arpa.",
        "_x.64.100.in-addr.arpa.",
    ] {
        ask(&server, &question(asked, RecordType::A)).await;
    }
    assert_eq!(all_of(&mut told), Vec::<String>::new());
    // Nor when somebody else's name is an alias of one.
    let answer = ask(&server, &question("alias.example.", RecordType::A)).await;
    assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(all_of(&mut told), ["alias.example."]);
}

#[tokio::test]
async fn nobody_else_is_asked_for_peers_without_wish_or_without_a_fleet() {
    let (port, mut told) = upstream().await;
    let for_peers = serve(fleet(), None).await;
    let for_all = serve(fleet(), Some(forwarder(port))).await;
    let unenrolled = serve(Names::default(), Some(forwarder(port))).await;
    let plain = question("www.example.", RecordType::A);
    let mut iterative = plain.clone();
    iterative.metadata.recursion_desired = false;
    for (server, question) in [
        (&for_peers, &plain),
        (&for_all, &iterative),
        (&unenrolled, &plain),
    ] {
        let answer = ask(server, question).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    assert_eq!(all_of(&mut told), Vec::<String>::new());
}

#[tokio::test]
async fn only_local_askers_learn_the_version() {
    let mut asked = question("version.bind.", RecordType::TXT);
    asked.queries[0].query_class = DNSClass::CH;
    let local = serve(fleet(), Some(Arc::default())).await;
    let answer = ask(&local, &asked).await;
    assert!(answer.answers[0].data.to_string().contains("meshd"));
    let overlay = serve(fleet(), None).await;
    let answer = ask(&overlay, &asked).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn an_address_that_may_not_be_had_is_not_taken_for_another_resolver_s() {
    let failed = |kind: std::io::ErrorKind| {
        let address = "127.0.0.150:53".parse().unwrap();
        let source = kind.into();
        DnsError { address, source }.to_string()
    };
    assert!(failed(std::io::ErrorKind::PermissionDenied).ends_with("run meshd as root"));
    assert!(failed(std::io::ErrorKind::AddrInUse).contains("another resolver"));
}

async fn connect(server: &DnsServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

async fn put(stream: &mut TcpStream, question: &Message) {
    let bytes = question.to_bytes().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

async fn take(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer).unwrap())
}

#[tokio::test]
async fn a_crowd_of_idle_clients_keeps_nobody_out() {
    let server = serve(fleet(), None).await;
    let alpha = question("alpha.mesh.internal.", RecordType::A);
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let mut client = connect(&server).await;
        put(&mut client, &alpha).await;
        assert_eq!(take(&mut client).await.unwrap().answers.len(), 1);
        crowd.push(client);
    }
    let mut late = connect(&server).await;
    put(&mut late, &alpha).await;
    assert_eq!(take(&mut late).await.unwrap().answers.len(), 1);
    assert!(take(&mut crowd[0]).await.is_err(), "the first made room");
    put(&mut crowd[63], &alpha).await;
    assert_eq!(take(&mut crowd[63]).await.unwrap().answers.len(), 1);
}

#[tokio::test]
async fn a_client_that_asks_no_more_is_let_go_at_once() {
    let server = serve(fleet(), None).await;
    let mut client = connect(&server).await;
    put(
        &mut client,
        &question("alpha.mesh.internal.", RecordType::A),
    )
    .await;
    client.shutdown().await.unwrap();
    assert_eq!(take(&mut client).await.unwrap().answers.len(), 1);
    assert!(take(&mut client).await.is_err());
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let responder = Responder {
        names: Arc::new(ArcSwap::from_pointee(fleet())),
        forwarder: None,
        tally: Arc::default(),
    };
    let serving = streams::serve_patiently(listener, responder, Duration::from_millis(1));
    let serving = tokio::spawn(serving);
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(take(&mut client).await.is_err());
    serving.abort();
}

#[tokio::test]
async fn what_is_no_question_is_told_so_or_ends_the_conversation() {
    let server = serve(fleet(), None).await;
    let mut client = connect(&server).await;
    client.write_all(&[0, 4, 1, 2, 3, 4]).await.unwrap();
    let answer = take(&mut client).await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(answer.metadata.id, 0x0102);
    let mut reply = question("alpha.mesh.internal.", RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    put(&mut client, &reply).await;
    assert!(take(&mut client).await.is_err());
}
