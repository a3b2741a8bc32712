//! `meshctl tokens`.

use jiff::Timestamp;
use model::admin::{CreateToken, CreatedToken, TokenView};
use model::ids::TokenId;

use crate::arguments::{self, Targets, Tokens};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Table, Tone, time};

/// Runs a verb of `meshctl tokens`.
///
/// # Errors
/// The coordinator does not answer or refuses.
pub async fn run(verb: Tokens, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    match verb {
        Tokens::Create(create) => {
            let created: CreatedToken = client.post("/v1/tokens", &request(create)).await?;
            let again = format!(
                "`meshctl tokens revoke {}` withdraws it; then make another",
                created.view.id
            );
            output.show_once("CreatedToken", &created, &again, |output| {
                created_text(&created, output)
            });
        }
        Tokens::List => {
            let tokens: Vec<TokenView> = client.get("/v1/tokens").await?;
            output.show("TokenList", &tokens, |output| table(&tokens, output));
        }
        Tokens::Revoke { id } => {
            let id: TokenId = id
                .parse()
                .map_err(|error: model::ids::InvalidId| Failure::Usage(error.to_string()))?;
            let revoked: TokenView = client.delete(&format!("/v1/tokens/{id}")).await?;
            output.show("Token", &revoked, |output| {
                format!(
                    "{} token {} is revoked; hosts that joined with it stay",
                    output.paint(Tone::Good, "✓"),
                    revoked.id
                )
            });
        }
    }
    Ok(())
}

fn request(create: arguments::CreateToken) -> CreateToken {
    CreateToken {
        labels: create
            .labels
            .into_iter()
            .map(|label| (label.key, label.value))
            .collect(),
        uses: if create.unlimited {
            None
        } else {
            Some(create.uses.unwrap_or(1))
        },
        valid_for_secs: create.valid_for,
        names: create.names,
        comment: create.comment,
    }
}

/// The token alone on its line, so that it can be piped on.
fn created_text(created: &CreatedToken, output: &Output) -> String {
    let uses = match created.view.uses {
        Some(1) => "one host".into(),
        Some(uses) => format!("{uses} hosts"),
        None => "any number of hosts".into(),
    };
    output.progress(&format!(
        "for {uses}, until {}; it is shown this once. On the host: meshctl join TOKEN",
        time(created.view.expires_secs)
    ));
    created.token.clone()
}

fn table(tokens: &[TokenView], output: &Output) -> String {
    let mut table = Table::new(&[
        "ID", "USED", "EXPIRES", "STATE", "LABELS", "NAMES", "COMMENT",
    ]);
    for token in tokens {
        let (tone, state) = state(token, Timestamp::now().as_second());
        let labels: Vec<String> = token
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row([
            token.id.to_string(),
            format!(
                "{}/{}",
                token.used,
                token
                    .uses
                    .map_or_else(|| "∞".into(), |uses| uses.to_string())
            ),
            time(token.expires_secs),
            output.paint(tone, state),
            labels.join(","),
            token.names.join(","),
            token.comment.clone(),
        ]);
    }
    table.text("there are no tokens; `meshctl tokens create` makes one")
}

/// Whether a token is good at `now`, in seconds of Unix time by this machine's clock.
fn state(token: &TokenView, now: i64) -> (Tone, &'static str) {
    let is_expired = i64::try_from(token.expires_secs).is_ok_and(|expires| expires <= now);
    match token.uses {
        _ if token.revoked => (Tone::Bad, "revoked"),
        Some(uses) if token.used >= uses => (Tone::Faint, "used up"),
        _ if is_expired => (Tone::Faint, "expired"),
        _ => (Tone::Good, "good"),
    }
}

/// Reads a span such as 90s, 30m, 12h or 7d, in seconds.
///
/// # Errors
/// It is no such span.
pub fn parse_span(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a span: write a number and s, m, h or d, such as 12h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(bad)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(bad()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|secs| *secs > 0)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_is_not() {
        let token = |used, revoked| TokenView {
            id: TokenId::from_bytes([0; 8]),
            labels: Default::default(),
            uses: Some(2),
            used,
            created_secs: 0,
            expires_secs: 100,
            revoked,
            names: Vec::new(),
            comment: String::new(),
        };
        assert_eq!(state(&token(1, false), 99).1, "good");
        assert_eq!(state(&token(1, false), 100).1, "expired");
        assert_eq!(state(&token(2, false), 99).1, "used up");
        assert_eq!(state(&token(1, true), 100).1, "revoked");
    }

    #[test]
    fn spans_have_units() {
        assert_eq!(parse_span("90s"), Ok(90));
        assert_eq!(parse_span("2d"), Ok(172_800));
        for bad in [
            "",
            "1",
            "h",
            "1w",
            "-1h",
            "0s",
            "1.5h",
            "99999999999999999999d",
        ] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
