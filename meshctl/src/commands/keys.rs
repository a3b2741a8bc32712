//! `meshctl keys`: this host's keys.

use model::local::KeyRotated;

use crate::arguments::{Keys, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// Runs a verb of `meshctl keys`.
///
/// # Errors
/// The daemon or the coordinator refuses.
pub async fn run(verb: Keys, targets: &Targets, output: &Output) -> Result<(), Failure> {
    match verb {
        Keys::Rotate => rotate(targets, output).await,
    }
}

async fn rotate(targets: &Targets, output: &Output) -> Result<(), Failure> {
    output.progress("changing this host's WireGuard key …");
    let client = connect::awake(connect::daemon(targets)).await?;
    let rotated: KeyRotated = client.post("/v1/keys/rotate", &()).await?;
    output.show("KeyRotated", &rotated, |output| match &rotated.next {
        None => format!(
            "{} the WireGuard key of this host is {} now; open connections live on",
            output.paint(Tone::Good, "✓"),
            rotated.wireguard_key
        ),
        Some(next) => format!(
            "{} the next WireGuard key of this host is {next}\n  {}",
            output.paint(Tone::Doubtful, "!"),
            rotated
                .note
                .as_deref()
                .unwrap_or("the change goes on by itself")
        ),
    });
    Ok(())
}
