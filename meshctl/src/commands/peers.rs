//! `meshctl peers`.

use model::local::PeerView;

use super::ping::IPV6_MTU;
use crate::arguments::Targets;
use crate::failure::Failure;
use crate::membership::member;
use crate::output::{Output, Table, Tone, bytes, span};

/// Lists the peers that this host knows.
///
/// # Errors
/// The daemon does not answer or refuses.
pub async fn list(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let peers: Vec<PeerView> = member(targets).await?.get("/v1/peers").await?;
    output.show("PeerList", &peers, |output| {
        let mut table = Table::new(&[
            "NAME",
            "ADDRESS",
            "ENDPOINT",
            "CIPHER",
            "MTU",
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
                peer.cipher.clone().unwrap_or_else(|| "-".into()),
                mtu(peer, output),
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

/// What is proven stands by itself.
fn mtu(peer: &PeerView, output: &Output) -> String {
    let Some(bytes) = peer.mtu else {
        return "-".into();
    };
    match peer.mtu_standing.as_deref() {
        Some("proven") => bytes.to_string(),
        Some("narrow") => output.paint(Tone::Bad, &format!("below {IPV6_MTU}")),
        _ => output.paint(Tone::Faint, &format!("{bytes} assumed")),
    }
}
