//! `meshctl join` and `meshctl leave`.

use std::io::Read;
use std::path::Path;

use model::local::{JoinRequest, Joined, Left};

use super::unattended;
use crate::arguments::{Join, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone};
use crate::waiting::while_working;

/// A token is far shorter; more is certainly something else.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Makes this host a member of a fleet.
///
/// # Errors
/// The token cannot be read, or the daemon or the coordinator refuses.
pub async fn join(arguments: Join, targets: &Targets, output: &Output) -> Result<(), Failure> {
    if arguments.unattended {
        let work = unattended::join(arguments.name, targets);
        let joined = while_working(output, "joining", work).await?;
        output.show("Joined", &joined, |output| joined_text(&joined, output));
        return Ok(());
    }
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) if token != "-" => token.clone(),
        (_, Some(path)) if path != Path::new("-") => {
            read_token(std::fs::File::open(path), &path.display().to_string())?
        }
        _ => read_token(Ok(std::io::stdin()), "standard input")?,
    };
    let request = JoinRequest {
        token: token.trim().to_owned(),
        name: arguments.name,
    };
    let client = connect::awake(connect::daemon(targets)).await?;
    let work = client.post::<Joined>("/v1/join", &request);
    let joined = while_working(output, "joining", work).await?;
    output.show("Joined", &joined, |output| joined_text(&joined, output));
    Ok(())
}

fn joined_text(joined: &Joined, output: &Output) -> String {
    let addresses: Vec<String> = joined.addresses.iter().map(ToString::to_string).collect();
    format!(
        "{} {} is a member of fleet {} as {}.{}",
        output.paint(Tone::Good, "✓"),
        joined.name,
        joined.fleet,
        joined.name,
        joined.dns_suffix,
    ) + &format!(
        "\n  addresses {}\n  next: meshctl status, meshctl peers",
        addresses.join(" ")
    ) + &joined
        .note
        .as_ref()
        .map_or_else(String::new, |note| format!("\n  note: {note}"))
}

pub(super) fn read_token(
    source: std::io::Result<impl Read>,
    name: &str,
) -> Result<String, Failure> {
    let mut text = String::new();
    source
        .and_then(|source| source.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| Failure::Failed(format!("cannot read the token from {name}: {error}")))?;
    if text.trim().is_empty() {
        return Err(Failure::Usage(format!(
            "there is no token in {name}; `meshctl tokens create` makes one"
        )));
    }
    Ok(text)
}

/// Takes this host out of its fleet.
///
/// # Errors
/// The daemon refuses.
pub async fn leave(targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::awake(connect::daemon(targets)).await?;
    let left: Left = client.post("/v1/leave", &()).await?;
    output.show("Left", &left, |output| {
        if left.coordinator_told {
            format!("{} this host has left its fleet", output.paint(Tone::Good, "✓"))
        } else {
            format!(
                "{} this host has left its fleet and forgot its keys, but the coordinator could not be told:\n  remove it there with `meshctl hosts remove NAME`",
                output.paint(Tone::Doubtful, "!")
            )
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    #[test]
    fn an_empty_token_file_is_a_usage_error() {
        assert!(matches!(
            read_token(Ok(&b" \n"[..]), "x"),
            Err(Failure::Usage(_))
        ));
    }

    #[test]
    fn a_token_comes_through_as_it_is() {
        assert_eq!(
            read_token(Ok(&b"mesh1abc\n"[..]), "x").unwrap(),
            "mesh1abc\n"
        );
    }

    #[test]
    fn what_is_to_know_about_a_join_is_shown() {
        let joined = Joined {
            name: "web-1".parse().unwrap(),
            fleet: "prod".parse().unwrap(),
            addresses: Vec::new(),
            dns_suffix: "mesh.internal".to_owned(),
            note: Some("nothing was changed".to_owned()),
        };
        let text = joined_text(&joined, &Output::new(false, Color::Never));
        assert!(
            text.starts_with("✓ web-1 is a member of fleet prod"),
            "{text}"
        );
        assert!(text.ends_with("note: nothing was changed"), "{text}");
    }
}
