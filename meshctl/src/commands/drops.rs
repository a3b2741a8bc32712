//! `meshctl drops`: packets that went no further on this host, why, and what to try.

use std::io::{self, IsTerminal};
use std::time::Duration;

use model::local::DropsView;

use crate::arguments::{Drops, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, ago, time};

/// Clears a terminal and goes to its beginning (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows the drop reasons that occurred, once or again and again.
///
/// # Errors
/// The daemon does not answer or refuses.
pub async fn drops(arguments: Drops, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::daemon(targets);
    loop {
        let view: DropsView = client.get("/v1/drops").await?;
        if arguments.watch && !output.is_json() && io::stdout().is_terminal() {
            output.print(CLEAR.as_bytes());
        }
        output.show("Drops", &view, |output| {
            text(&view, arguments.all, crate::output::now_secs(), output)
        });
        if !arguments.watch || !output.has_reader() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(arguments.interval)).await;
    }
}

fn text(view: &DropsView, all: bool, now_secs: u64, output: &Output) -> String {
    let mut table = Table::new(&["REASON", "PACKETS", "LAST MINUTE", "SINCE", "LAST"]);
    for row in &view.reasons {
        let rate = match row.last_minute {
            0 => output.paint(Tone::Faint, "0"),
            count => output.paint(Tone::Doubtful, &count.to_string()),
        };
        table.row([
            row.reason.clone(),
            row.packets.to_string(),
            rate,
            time(row.first_secs),
            ago(row.last_secs, now_secs),
        ]);
    }
    let empty = format!("no packet was dropped since {}", time(view.since_secs));
    let mut text = table.text(&empty);
    // A reason that no longer occurs needs no advice, unless it is asked for.
    let current = view.reasons.iter().filter(|row| all || row.last_minute > 0);
    for row in current {
        text += &format!(
            "\n\n{}: {}\n  {}",
            row.reason,
            row.meaning,
            output.paint(Tone::Faint, &row.advice)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use model::local::DropView;

    use super::*;
    use crate::output::Color;

    fn row(reason: &str, packets: u64, last_minute: u64) -> DropView {
        DropView {
            reason: reason.into(),
            packets,
            last_minute,
            first_secs: 0,
            last_secs: 3600,
            meaning: "It means this.".into(),
            advice: "Try that.".into(),
        }
    }

    #[test]
    fn what_occurs_now_is_explained_below_the_table() {
        let view = DropsView {
            since_secs: 0,
            reasons: vec![row("denied_inbound", 12, 3), row("forged", 1, 0)],
        };
        let output = Output::new(false, Color::Never);
        assert_eq!(
            text(&view, false, 3605, &output),
            "\
REASON          PACKETS  LAST MINUTE  SINCE                 LAST
denied_inbound  12       3            1970-01-01T00:00:00Z  5s ago
forged          1        0            1970-01-01T00:00:00Z  5s ago

denied_inbound: It means this.
  Try that."
        );
        assert!(text(&view, true, 3605, &output).contains("\nforged: It means this."));
    }

    #[test]
    fn no_drops_say_since_when() {
        let view = DropsView {
            since_secs: 0,
            reasons: Vec::new(),
        };
        let output = Output::new(false, Color::Never);
        assert_eq!(
            text(&view, false, 0, &output),
            "no packet was dropped since 1970-01-01T00:00:00Z"
        );
    }
}
