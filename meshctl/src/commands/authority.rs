//! `meshctl authority`: the fleet's authority changes its keys.

use std::time::Duration;

use model::admin::{AuthorityView, RetireAuthority, RootView, UnmovedHost};
use runtime::api_client::ApiClient;

use crate::arguments::{Authority, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// Hosts that people are shown; JSON has them all.
const SHOWN_MAX: usize = 20;

/// Runs a verb of `meshctl authority`.
///
/// # Errors
/// The coordinator does not answer or refuses.
pub async fn run(verb: Authority, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    // Everything is signed anew.
    let client = match verb {
        Authority::Show => client,
        Authority::Rotate | Authority::Retire { .. } => connect::awake(client).await?,
    };
    let (view, then): (AuthorityView, _) = match verb {
        Authority::Show => (client.get("/v1/authority").await?, None),
        Authority::Rotate => {
            let nothing = serde_json::json!({});
            let view = client.post("/v1/authority/rotate", &nothing).await?;
            (view, Some(ROTATED))
        }
        Authority::Retire { force } => {
            let order = RetireAuthority { force };
            let retired: AuthorityView = client.post("/v1/authority/retire", &order).await?;
            (erased(&client, retired).await, Some(RETIRED))
        }
    };
    let newest = view.roots.last().map(|root| root.pin);
    let followed = newest.map(|pin| connect::follow_root(targets, pin));
    output.show("AuthorityView", &view, |output| text(&view, then, output));
    if let Some(path) = followed.transpose()?.flatten() {
        output.progress(&format!("{} names the newest root now", path.display()));
    }
    Ok(())
}

/// Waits a moment for the old keys to be erased, which the coordinator begins as it answers. What it
/// says last is shown: whether they are gone.
async fn erased(client: &ApiClient, retired: AuthorityView) -> AuthorityView {
    let mut view = retired;
    for _ in 0..ERASE_LOOKS {
        if view.to_erase == 0 || view.erase_trouble.is_some() {
            break;
        }
        tokio::time::sleep(ERASE_LOOK_EVERY).await;
        match client.get::<AuthorityView>("/v1/authority").await {
            // Whom it left behind only the answer to the order says.
            Ok(later) => {
                view = AuthorityView {
                    left_behind: view.left_behind,
                    ..later
                }
            }
            Err(_) => break,
        }
    }
    view
}

/// How often is looked whether the old keys are erased, and how many times.
const ERASE_LOOK_EVERY: Duration = Duration::from_millis(200);
const ERASE_LOOKS: u32 = 25;

const ROTATED: &str = "hosts that are online move within two minutes, others when they come; look with \
    `meshctl authority show`, which also lets an operator's credential name the new root. Make a \
    backup now (`meshctl backup`): one from before the rotation is of no use once the old root is \
    retired. Then, when all have moved: `meshctl authority retire`";

const RETIRED: &str = "join tokens and credentials that name the old root open nothing any more; make a \
    backup now (`meshctl backup`): those from before the rotation are of no use";

fn text(view: &AuthorityView, then: Option<&str>, output: &Output) -> String {
    let mut lines = Vec::new();
    let tone = if view.rotating {
        Tone::Doubtful
    } else {
        Tone::Good
    };
    let head = match view.rotating {
        true => "two roots are believed: the authority is being rotated",
        false => "one root is believed",
    };
    lines.push(output.paint(tone, head));
    for (index, root) in view.roots.iter().enumerate() {
        let is_newest = index + 1 == view.roots.len();
        lines.push(root_line(root, is_newest, view.rotating));
    }
    lines.push(format!("  statement  {}.{}", view.epoch, view.serial));
    if view.rotating {
        lines.push(format!(
            "  moved      {} of {} hosts",
            view.moved, view.hosts
        ));
    }
    if !view.missing.is_empty() {
        let missing = view.missing.iter().take(SHOWN_MAX).map(unmoved);
        lines.push(format!(
            "  missing    {}",
            missing.collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some(more) = view.missing.len().checked_sub(SHOWN_MAX + 1) {
        lines.push(format!("             and {} more", more + 1));
    }
    if view.to_sign > 0 {
        lines.push(format!(
            "  to sign    {} records, tombstones and policies, by the new keys",
            view.to_sign
        ));
    }
    if view.to_erase > 0 {
        let why = match &view.erase_trouble {
            Some(why) => format!(" ({why})"),
            None => String::new(),
        };
        lines.push(output.paint(
            Tone::Bad,
            &format!(
                "  to erase   the keys of a retired root are still on the coordinator's disk{why}; \
                 erasing them is tried every minute until it works"
            ),
        ));
    }
    if !view.left_behind.is_empty() {
        let names: Vec<&str> = view.left_behind.iter().map(|it| it.as_str()).collect();
        lines.push(output.paint(
            Tone::Bad,
            &format!(
                "  left behind: {}. Who has heard of the new root moves by itself all the same: see \
                 who is online in `meshctl hosts list` after a minute. Each of the others comes back by \
                 `meshctl hosts remove NAME`, then `meshctl leave` and `meshctl join` with a new token \
                 on it",
                names.join(" ")
            ),
        ));
    }
    lines.extend(then.map(str::to_owned));
    lines.join("\n")
}

fn root_line(root: &RootView, is_newest: bool, rotating: bool) -> String {
    let which = match (rotating, is_newest) {
        (false, _) => "root",
        (true, true) => "new root",
        (true, false) => "old root",
    };
    format!("  {which:<9}  {} ({})", root.pin, root.name)
}

fn unmoved(host: &UnmovedHost) -> String {
    let why = match (host.online, host.believes) {
        (false, _) => "offline",
        (true, false) => "has not heard of it, or is of an earlier version",
        (true, true) => "has no certificate of it yet",
    };
    format!("{} ({why})", host.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;
    use model::ids::Digest;

    #[test]
    fn people_read_who_has_not_moved_and_why() {
        let root = |byte| RootView {
            pin: Digest::from_bytes([byte; 32]),
            name: "mesh fleet prod".to_owned(),
            made_secs: 0,
            expires_secs: 0,
        };
        let view = AuthorityView {
            epoch: 1,
            serial: 2,
            roots: vec![root(1), root(2)],
            rotating: true,
            hosts: 3,
            moved: 1,
            missing: vec![
                UnmovedHost {
                    name: "vm-17".parse().unwrap(),
                    online: false,
                    last_seen_secs: None,
                    believes: false,
                },
                UnmovedHost {
                    name: "vm-18".parse().unwrap(),
                    online: true,
                    last_seen_secs: Some(1),
                    believes: true,
                },
            ],
            to_sign: 0,
            to_erase: 0,
            erase_trouble: None,
            left_behind: Vec::new(),
        };
        let output = Output::new(false, Color::Never);
        let text = text(&view, None, &output);
        assert!(!text.contains("to erase"), "{text}");
        let retired = AuthorityView {
            to_erase: 1,
            erase_trouble: Some("no space left on device".to_owned()),
            ..view
        };
        let pending = super::text(&retired, Some(RETIRED), &output);
        assert!(
            pending.contains("still on the coordinator's disk (no space"),
            "{pending}"
        );
        assert!(text.contains("1 of 3 hosts"), "{text}");
        assert!(
            text.contains("vm-17 (offline), vm-18 (has no certificate"),
            "{text}"
        );
        assert!(text.contains("new root"), "{text}");
    }
}
