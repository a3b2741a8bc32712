//! A look at what the host can do: whether it has a default route, and resolves names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

use super::probation::Health;
use crate::linux::routes;
use crate::resolver::{HostFiles, all_nameservers};

/// How long one server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Servers that are asked: as many as the C library looks at (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// Looks; `None`: the kernel cannot be asked, and nothing is to be judged.
pub(super) async fn look(files: &HostFiles) -> Option<Health> {
    let (has_default_route, resolves_names) = tokio::join!(routes::has_default(), resolves(files));
    match has_default_route {
        Ok(has_default_route) => Some(Health {
            has_default_route,
            resolves_names,
        }),
        Err(error) => {
            tracing::debug!(%error, "the kernel cannot be asked for its default route");
            None
        }
    }
}

/// Whether a server of the host answers, asked as programs of this host would.
async fn resolves(files: &HostFiles) -> bool {
    let servers = all_nameservers(files).into_iter().take(SERVERS_MAX);
    let mut asked: FuturesUnordered<_> = servers
        .map(|server| answers(SocketAddr::new(server, DNS_PORT)))
        .collect();
    while let Some(answered) = asked.next().await {
        if answered {
            return true;
        }
    }
    false
}

/// Asks for the servers of the root: every server of a network can tell, and nobody learns
/// anything by the question.
async fn answers(server: SocketAddr) -> bool {
    let asking = async {
        let any = match server.ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await.ok()?;
        socket.connect(server).await.ok()?;
        // The kernel gave a port of its own: the answer can be told by the question alone.
        let mut question = Message::new(
            socket.local_addr().ok()?.port(),
            MessageType::Query,
            OpCode::Query,
        );
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::root(), RecordType::NS));
        socket.send(&question.to_vec().ok()?).await.ok()?;
        let mut memory = [0u8; 4096];
        let length = socket.recv(&mut memory).await.ok()?;
        let answer = Message::from_vec(&memory[..length]).ok()?;
        let is_good = answer.metadata.id == question.metadata.id
            && answer.metadata.response_code == ResponseCode::NoError;
        is_good.then_some(())
    };
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
    matches!(answered, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says `code` to everything.
    async fn server(code: ResponseCode) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut memory = [0u8; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut memory).await {
                let question = Message::from_vec(&memory[..length]).unwrap();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.metadata.response_code = code;
                let bytes = answer.to_vec().unwrap();
                socket.send_to(&bytes, asker).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_that_answers_counts_and_one_that_refuses_does_not() {
        assert!(answers(server(ResponseCode::NoError).await).await);
        assert!(!answers(server(ResponseCode::ServFail).await).await);
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        assert!(!answers(address).await);
    }
}
