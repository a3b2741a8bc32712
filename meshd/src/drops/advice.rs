//! What each drop reason means to an operator, and what to try.

use dataplane::DropReason;

/// What packets that the kernel did not take are counted under.
const UNDERLAY_SEND_FAILED: &str = "underlay_send_failed";
const OVERLAY_WRITE_FAILED: &str = "overlay_write_failed";
/// What the kernel dropped before this program saw it.
pub(crate) const OVERLAY_QUEUE_FULL: &str = "overlay_queue_full";
pub(crate) const UNDERLAY_QUEUE_FULL: &str = "underlay_queue_full";
pub(crate) const UNDERLAY_ABOVE_SHARE: &str = "underlay_above_share";
/// What flows that only their receiver denied are counted under.
const DENIED_BY_PEER: &str = "denied_by_peer";

const HARMLESS: &str = "Nothing to do: the kernel sends these by itself.";
const OTHERS_FAULT: &str = "A few are normal. Many come from a broken or hostile sender.";
const HANDSHAKE_NOISE: &str =
    "A few are normal. Many: somebody floods this port; members are served first.";

/// Returns what a reason is, a sentence.
pub(super) fn meaning(reason: &str) -> &'static str {
    match reason {
        UNDERLAY_SEND_FAILED => "The kernel did not take a datagram.",
        OVERLAY_WRITE_FAILED => "The kernel did not take a packet on the overlay's interface.",
        OVERLAY_QUEUE_FULL => {
            "The kernel's queue of the overlay's interface was full, or the interface was down: programs of this host sent faster than meshd took."
        }
        UNDERLAY_QUEUE_FULL => {
            "The kernel's receive buffer of the tunnels' port was full: datagrams came faster than meshd took."
        }
        UNDERLAY_ABOVE_SHARE => {
            "More datagrams came than this host can take, so that each sender has a share: the kernel dropped what was above one, and what found its buffer full meanwhile."
        }
        DENIED_BY_PEER => "A peer's policy denied a flow that this host's own allows, and said so.",
        _ => DropReason::ALL
            .iter()
            .find(|it| it.name() == reason)
            .map_or("A reason of another version.", |it| it.explanation()),
    }
}

/// Returns what to try, a sentence or two.
pub(super) fn advice(reason: &str) -> &'static str {
    advice_of(reason).unwrap_or("Look for it in the documentation of this version.")
}

fn advice_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        UNDERLAY_SEND_FAILED => {
            "Is there a route to the peer's endpoint (`meshctl peers`), and is the path's MTU at least 60 bytes above the overlay's?"
        }
        OVERLAY_WRITE_FAILED => "`meshctl status` has an alarm when the interface is down or gone.",
        OVERLAY_QUEUE_FULL | UNDERLAY_QUEUE_FULL => {
            "A few in a burst are normal. Many: the host has too few cores for this traffic; look at the load of meshd's threads (`top -H`), and set `shards` higher where cores are idle."
        }
        "overlay_above_share" => {
            "A program of this host floods a peer; packets to the others are served. Find the program (`nethogs`, `ss -unp`), or set `shards` higher where cores are idle."
        }
        UNDERLAY_ABOVE_SHARE => {
            "Somebody floods this host, a member or a stranger; others are served. Look whose traffic it is (`meshctl peers`; the other drop reasons tell what it is), and stop it there or in front of this host."
        }
        "no_identity" => "Run `meshctl join TOKEN`.",
        "no_policy" => "`meshctl status` says whether a coordinator can be reached.",
        "not_ip"
        | "truncated"
        | "bad_header"
        | "bad_transport"
        | "source_routed"
        | "too_many_extensions" => OTHERS_FAULT,
        "unsafe_fragment" | "unknown_fragment" => {
            "Let the application send packets that fit into the overlay's MTU."
        }
        "offload_unsupported" => "Update meshd.",
        "multicast" | "broadcast" | "link_local" | "router_solicitation" | "own_address" => {
            HARMLESS
        }
        "not_unicast" => "Correct the address that the application uses.",
        "foreign_source" => {
            "A container or VM of this host sends into the overlay; only the host itself has an identity. Let it go through a service of the host."
        }
        "unknown_destination" => {
            "No rule connects this host with that address, or it was removed. `meshctl why` with its name."
        }
        "too_big" => {
            "The sender was told what passes (`meshctl peers`, column MTU), and sends less. If it goes on, let ICMP \"too big\" through to it, from the overlay's interface."
        }
        "denied_outbound" | "denied_inbound" | DENIED_BY_PEER => {
            "The log of meshd names the rule; `meshctl why FROM TO:PORT` explains it."
        }
        "unknown_workload" => {
            "A few are normal after a restart of a peer. Many: the log of meshd names the rule that asks who sends; does the program run as the unit that its workload has, and is meshd there of this version?"
        }
        "unrelated_claim" => "Late answers are normal. Many come from a broken or hostile peer.",
        "claim_table_full" => {
            "A peer opens very many flows of UDP under rules that name workloads; those are dropped that are too many."
        }
        "unrelated_icmp" | "unrelated_reply" | "unrelated_rejection" => {
            "Late answers are normal. Many without traffic come from a broken or hostile peer."
        }
        "forbidden_icmp" => "Some peer sends redirects or the like. Nothing to do here.",
        "flow_table_full" => {
            "Something on this host or a peer opens very many flows; `ss -s` tells whether it is this host."
        }
        "pending_overflow" | "peer_unreachable" => {
            "`meshctl ping HOST` and `meshctl peers`: is UDP open between the hosts, and does meshd run there?"
        }
        "peer_removed" => "The peer left the fleet, or no rule connects it any more.",
        "handed_over" => "A newer meshd took over. Programs send such packets again.",
        "impossible_source" | "not_wireguard" => {
            "Something else sends to the tunnel's UDP port. Restrict the port in the firewall, if it is much."
        }
        "unknown_receiver" => {
            "Normal for seconds after a peer or this daemon restarts. Many for longer: somebody floods the tunnels' port with made-up packets; each costs little, and is best stopped in front of this host."
        }
        "session_expired" => "Normal for seconds after a peer or this daemon restarts.",
        "forged" => "Damaged on the way, or forged. Many from a member: look for a bad link.",
        "replayed" => "Duplicated or very late on the way. Many: look for a bad link or a loop.",
        "spoofed_source" => {
            "A peer sends for somebody else, such as its containers or VMs; only the host itself has an identity."
        }
        "not_our_address" => {
            "A peer believes that this host has another address; it is right again when the peer hears of the change."
        }
        "bad_control" => "A peer runs another version; `meshctl hosts list` shows the versions.",
        "congestion_unmarkable" => "The underlay is congested and the application cannot be told.",
        "handshake_unknown_key" => {
            "A host that is no member, or no longer, tries to connect. `meshctl hosts list` shows who is."
        }
        "handshake_bad_mac"
        | "handshake_needs_cookie"
        | "handshake_overload"
        | "handshake_forged"
        | "handshake_replayed"
        | "handshake_too_frequent"
        | "handshake_unexpected"
        | "cookie_rejected" => HANDSHAKE_NOISE,
        "hand_over_full" => {
            "Packets come faster than their thread takes them: set `shards` lower, or give the host more cores."
        }
        "streams_full" => {
            "More calls of services come over QUIC than this host takes, or somebody floods the tunnels' port. Open TCP between the hosts (docs/services.md), and QUIC is not needed."
        }
        "outbox_full" => "This host is at the end of its memory for packets: it is overloaded.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_to_try() {
        let others = [
            UNDERLAY_SEND_FAILED,
            OVERLAY_WRITE_FAILED,
            OVERLAY_QUEUE_FULL,
            UNDERLAY_QUEUE_FULL,
            UNDERLAY_ABOVE_SHARE,
            DENIED_BY_PEER,
        ];
        let all = DropReason::ALL.iter().map(|reason| reason.name());
        for name in all.chain(others) {
            assert!(advice_of(name).is_some(), "{name}");
            assert!(meaning(name).ends_with('.'), "{name}");
        }
        assert_eq!(advice_of("no_such_reason"), None);
    }
}
