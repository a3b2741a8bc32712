//! `meshctl backup`, on the coordinator's own machine; and `meshctl recovery`, after a restore.

use std::path::{Path, PathBuf};

use model::admin::{Backup, FinishRecovery, RecoveryStatus, StartRecovery};
use model::name::Name;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{self, Targets};
use crate::connect::{self, COORDINATOR_SOCKET};
use crate::failure::Failure;
use crate::output::{Output, Tone};
use crate::private_file;

/// A backup that was written, as `--json` shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Backup")]
pub(crate) struct Written {
    file: PathBuf,
    fleet: Name,
    /// The store's revision; everything is as it was at this one.
    revision: u64,
    /// Of the file.
    bytes: usize,
}

/// Writes a backup of the coordinator to a file that only its owner can read.
///
/// # Errors
/// There is such a file, the coordinator does not run on this machine, or what it says is damaged.
pub async fn backup(file: &Path, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let socket = targets.coordinator_socket.as_deref();
    let socket = socket.unwrap_or(Path::new(COORDINATOR_SOCKET));
    // A link that leads nowhere is one to a coordinator that is being started.
    if socket.symlink_metadata().is_err() {
        return Err(Failure::Unreachable(format!(
            "{} is not there: a backup holds the fleet's keys and is made on the coordinator's own \
             machine only",
            socket.display()
        )));
    }
    if file.exists() {
        let text = format!("{} is there already; choose another name", file.display());
        return Err(Failure::Failed(text));
    }
    let backup: Backup = connect::coordinator_at(socket)
        .with_patience(connect::WORK_PATIENCE)
        .get("/v1/backup")
        .await?;
    if trust::sha256(&backup.sealed_bytes()) != backup.digest {
        let text = "what the coordinator sent is damaged; nothing was written".to_owned();
        return Err(Failure::Failed(text));
    }
    let bytes = serde_json::to_vec(&backup).map_err(|error| Failure::Failed(error.to_string()))?;
    private_file::write(file, &bytes)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", file.display())))?;
    let shown = Written {
        file: file.to_owned(),
        fleet: backup.fleet.clone(),
        revision: backup.revision,
        bytes: bytes.len(),
    };
    output.show("Backup", &shown, |output| {
        format!(
            "{} {}: fleet {} at revision {}, {} bytes. It holds the fleet's keys: keep it as safe \
             as the coordinator",
            output.paint(Tone::Good, "✓"),
            file.display(),
            backup.fleet,
            backup.revision,
            bytes.len()
        )
    });
    Ok(())
}

/// Runs a verb of `meshctl recovery`.
///
/// # Errors
/// The coordinator does not answer or refuses.
pub async fn recovery(
    verb: Option<arguments::Recovery>,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    let status: RecoveryStatus = match verb {
        None => client.get("/v1/recovery").await?,
        Some(arguments::Recovery::Start { why }) => {
            client.post("/v1/recovery", &StartRecovery { why }).await?
        }
        Some(arguments::Recovery::Finish { force }) => {
            let order = FinishRecovery { force };
            client.post("/v1/recovery/finish", &order).await?
        }
    };
    output.show("RecoveryStatus", &status, |output| text(&status, output));
    Ok(())
}

fn text(status: &RecoveryStatus, output: &Output) -> String {
    if !status.under_way {
        let idle = format!(
            "no recovery is under way; epoch {}, {} hosts",
            status.epoch, status.hosts
        );
        let lines = [Some(idle), disbelief(status.disbelieving, output)];
        return lines.into_iter().flatten().collect::<Vec<_>>().join("\n");
    }
    let mut lines = vec![output.paint(
        Tone::Doubtful,
        "the hosts are being asked what they remember",
    )];
    if let Some(why) = &status.why {
        lines.push(format!("  why        {why}"));
    }
    lines.push(format!(
        "  heard      {} of {} hosts",
        status.heard, status.hosts
    ));
    lines.push(format!(
        "  stored     {} newer records and tombstones, {} under way",
        status.stored, status.pending
    ));
    lines.extend(disbelief(status.disbelieving, output));
    if let Some(version) = status.recalled_policy {
        lines.push(format!("  policy     version {version} is remembered"));
    }
    if !status.missing.is_empty() {
        let missing: Vec<String> = status.missing.iter().map(ToString::to_string).collect();
        lines.push(format!("  missing    {}", missing.join(" ")));
        lines.push(match status.heard {
            0 => "wait until hosts come: `meshctl recovery finish --force` would go on with what is \
                  stored here alone"
                .to_owned(),
            _ => "`meshctl recovery finish` goes on without them: what only they remember comes when \
                  they come back"
                .to_owned(),
        });
    }
    lines.join("\n")
}

/// Returns what to tell when machines say that they do not believe the coordinator. None of them has
/// shown who it is.
pub(super) fn disbelief(machines: usize, output: &Output) -> Option<String> {
    let text = format!(
        "  disbelief  {machines} machines said in the last minutes that they do not believe this \
         coordinator's certificate, as anybody who reaches the port can. They may be strangers, old \
         tokens and credentials, or hosts that were left behind when a root was retired; if `meshctl \
         hosts list` has every host offline, this coordinator may have been restored from before the \
         last rotation of the authority: restore a newer backup"
    );
    (machines > 0).then(|| output.paint(Tone::Doubtful, &text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    fn under_way() -> RecoveryStatus {
        RecoveryStatus {
            under_way: true,
            why: Some("it was restored".into()),
            epoch: 1,
            hosts: 3,
            heard: 2,
            missing: vec!["vm-17".parse().unwrap()],
            stored: 4,
            pending: 0,
            recalled_policy: None,
            disbelieving: 0,
        }
    }

    #[test]
    fn people_read_that_hosts_do_not_believe_the_coordinator() {
        let output = Output::new(false, Color::Never);
        assert!(!text(&under_way(), &output).contains("disbelief"));
        for under_way in [true, false] {
            let status = RecoveryStatus {
                under_way,
                heard: 0,
                disbelieving: 3,
                ..self::under_way()
            };
            let text = text(&status, &output);
            assert!(text.contains("3 machines said"), "{text}");
            assert!(text.contains("They may be strangers"), "{text}");
            assert!(text.contains("restore a newer backup"), "{text}");
            assert_eq!(text.contains("finish --force"), under_way, "{text}");
        }
    }

    #[test]
    fn people_read_who_is_missing_and_what_to_do() {
        let text = text(&under_way(), &Output::new(false, Color::Never));
        assert!(
            text.contains("2 of 3 hosts") && text.contains("missing    vm-17"),
            "{text}"
        );
        assert!(text.contains("meshctl recovery finish"), "{text}");
    }
}
