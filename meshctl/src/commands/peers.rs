//! `meshctl peers` and `meshctl ping`.

use model::local::{PeerView, PingReply, PingRequest};

use crate::arguments::{Ping, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, bytes, span};

/// Lists the peers that this host knows.
///
/// # Errors
/// The daemon does not answer or refuses.
pub async fn list(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let peers: Vec<PeerView> = connect::daemon(targets).get("/v1/peers").await?;
    output.show("PeerList", &peers, |output| {
        let mut table = Table::new(&[
            "NAME",
            "ADDRESS",
            "ENDPOINT",
            "HANDSHAKE",
            "RECEIVED",
            "SENT",
            "LABELS",
        ]);
        for peer in &peers {
            let handshake = match peer.last_handshake_secs {
                Some(secs) => output.paint(Tone::Good, &format!("{} ago", span(secs))),
                None => output.paint(Tone::Faint, "never"),
            };
            let labels: Vec<String> = peer
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            table.row([
                peer.name.to_string(),
                peer.addresses
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                peer.endpoint
                    .map_or_else(|| "-".into(), |endpoint| endpoint.to_string()),
                handshake,
                bytes(peer.received_bytes),
                bytes(peer.sent_bytes),
                labels.join(","),
            ]);
        }
        table.text("this host knows no peers yet")
    });
    Ok(())
}

/// Sends echoes through the tunnel.
///
/// # Errors
/// The peer is not known, or no echo was answered.
pub async fn ping(arguments: Ping, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::daemon(targets);
    let request = PingRequest {
        host: arguments.host,
        timeout_millis: arguments.timeout,
    };
    let mut replies: Vec<PingReply> = Vec::new();
    for number in 0..arguments.count {
        let reply: PingReply = client.post("/v1/ping", &request).await?;
        if !output.is_json() {
            output.show("PingReply", &reply, |output| reply_text(&reply, output));
        }
        let answered = reply.round_trip_micros.is_some();
        replies.push(reply);
        if answered && number + 1 < arguments.count {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    if output.is_json() {
        output.show("PingReplies", &replies, |_| String::new());
    }
    if replies
        .iter()
        .any(|reply| reply.round_trip_micros.is_some())
    {
        Ok(())
    } else {
        Err(Failure::Failed(String::new()))
    }
}

fn reply_text(reply: &PingReply, output: &Output) -> String {
    let via = reply
        .endpoint
        .map(|endpoint| format!(" via {endpoint}"))
        .unwrap_or_default();
    match (reply.round_trip_micros, &reply.note) {
        (Some(micros), _) => {
            let millis = micros as f64 / 1000.0;
            format!(
                "{} ({}){via}: {}",
                reply.name,
                reply.address,
                output.paint(Tone::Good, &format!("{millis:.2} ms"))
            )
        }
        (None, note) => {
            let note = note.as_deref().unwrap_or("no answer");
            format!(
                "{} ({}): {}",
                reply.name,
                reply.address,
                output.paint(Tone::Bad, note)
            )
        }
    }
}
