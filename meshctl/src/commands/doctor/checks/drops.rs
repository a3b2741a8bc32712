//! Packets that went no further because this host does not keep up.

use model::local::DropView;

use super::super::facts::Facts;
use super::super::finding::Finding;

/// Reasons that say that the host is overloaded, or a table of it full.
const OVERLOAD: [&str; 6] = [
    "overlay_queue_full",
    "underlay_queue_full",
    "hand_over_full",
    "outbox_full",
    "flow_table_full",
    "pending_overflow",
];
/// Packets of one such reason within a minute from which on they are no burst.
const PACKETS_MIN: u64 = 100;

pub(super) fn drops(facts: &Facts) -> Finding {
    const CHECK: &str = "drops";
    let drops = match &facts.drops {
        Ok(drops) => drops,
        Err(why) => return Finding::skipped(CHECK, why.clone()),
    };
    let is_overload =
        |row: &&DropView| OVERLOAD.contains(&row.reason.as_str()) && row.last_minute >= PACKETS_MIN;
    let many: Vec<&DropView> = drops.reasons.iter().filter(is_overload).collect();
    let Some(first) = many.first() else {
        return Finding::ok(CHECK, "no packet was dropped of late because of overload");
    };
    let said = |row: &&DropView| format!("{} {}", row.last_minute, row.reason);
    let said: Vec<String> = many.iter().map(said).collect();
    Finding::warning(
        CHECK,
        format!(
            "packets dropped within the last minute: {}",
            said.join(", ")
        ),
        "connections through the overlay are slower than they need be",
        format!("{} `meshctl drops` has them all", first.advice),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    #[test]
    fn a_host_that_does_not_keep_up_is_told_by_what_is_full() {
        let mut facts = healthy::facts();
        let row = |reason: &str, last_minute| DropView {
            reason: reason.into(),
            packets: 5000,
            last_minute,
            first_secs: 0,
            last_secs: 0,
            meaning: String::new(),
            advice: "More cores.".into(),
        };
        facts.drops.as_mut().unwrap().reasons = vec![
            row("denied_inbound", 4000),
            row("overlay_queue_full", 4000),
            row("underlay_queue_full", 3),
        ];
        let finding = drops(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(
            finding.what.ends_with("minute: 4000 overlay_queue_full"),
            "{finding:?}"
        );
        assert!(finding.advice.unwrap().starts_with("More cores."));
    }
}
