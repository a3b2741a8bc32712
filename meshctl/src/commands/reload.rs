//! `meshctl reload`: what is installed on this host comes into force, and no connection is cut.

use std::time::Duration;

use model::local::{HandedOver, RELOAD_WITHIN, ReloadRequest, Reloaded};

use crate::arguments::{Reload, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// Asks the daemon to reload, and waits until it has.
///
/// # Errors
/// The installed program could not take over; the one that ran goes on.
pub async fn reload(reload: &Reload, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let request = ReloadRequest {
        hand_over: reload.hand_over,
    };
    let daemon = connect::awake(connect::daemon(targets)).await?;
    let daemon = daemon.with_patience(RELOAD_WITHIN);
    let reloaded: Reloaded = daemon.post("/v1/reload", &request).await?;
    output.show("Reloaded", &reloaded, |output| {
        let good = output.paint(Tone::Good, "✓");
        match &reloaded.handed_over {
            None => format!("{good} the settings were read again; see the log for what they say"),
            Some(done) => format!("{good} {}", sentence(done)),
        }
    });
    Ok(())
}

fn sentence(done: &HandedOver) -> String {
    let HandedOver {
        from,
        to,
        process: _,
        pause_micros,
        handshakes_begun,
        handshakes_answered,
        flows,
    } = done;
    let what = match from == to {
        true => format!("another meshd {to} has taken over"),
        false => format!("meshd {to} has taken over from {from}"),
    };
    let pause_millis = Duration::from_micros(*pause_micros).as_secs_f64() * 1000.0;
    format!(
        "{what}: packets waited {pause_millis:.1} ms, {flows} flows live on, {handshakes_answered} \
         of {handshakes_begun} peers had a new session before"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_waits_longer_than_this_program() {
        let unit = include_str!("../../../systemd/meshd.service");
        let mut lines = unit.lines();
        let secs = lines.find_map(|it| it.strip_prefix("TimeoutStartSec=")?.strip_suffix('s'));
        let patience = Duration::from_secs(secs.unwrap().parse().unwrap());
        assert!(connect::PATIENCE + RELOAD_WITHIN < patience);
    }

    #[test]
    fn people_are_told_what_an_upgrade_cost() {
        let mut done = HandedOver {
            from: "1.2.0".into(),
            to: "1.3.0".into(),
            process: 7,
            pause_micros: 2345,
            handshakes_begun: 9,
            handshakes_answered: 8,
            flows: 41,
        };
        assert_eq!(
            sentence(&done),
            "meshd 1.3.0 has taken over from 1.2.0: packets waited 2.3 ms, 41 flows live on, 8 of 9 \
             peers had a new session before"
        );
        done.from = done.to.clone();
        assert!(sentence(&done).starts_with("another meshd 1.3.0 has taken over: "));
    }
}
