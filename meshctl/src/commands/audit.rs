//! `meshctl audit`: who changed what, and whether the log is whole.

use model::admin::{AuditEntry, AuditOutcome, AuditPage};
use model::ids::Digest;
use runtime::api_client::ApiClient;
use schemars::JsonSchema;
use serde::Serialize;
use trust::audit::{AuditBreak, AuditChain};

use crate::arguments::{Audit, Targets};
use crate::connect;
use crate::failure::Failure;
use crate::output::{Output, Tone, time};

/// Entries that are shown when nobody says which.
const SHOWN: usize = 50;

/// Runs `meshctl audit`.
///
/// # Errors
/// The coordinator does not answer or refuses, or the log is not whole.
pub async fn run(audit: Audit, targets: &Targets, output: &Output) -> Result<(), Failure> {
    let client = connect::coordinator(targets)?;
    if audit.verify {
        return verify(audit.kept.as_ref(), &client, output).await;
    }
    let entries = match (audit.since, &audit.who) {
        (None, None) if !audit.all => newest(&client).await?,
        _ => {
            let filter = filter(&audit)?;
            every(&client, &filter).await?.0
        }
    };
    output.show("AuditLog", &entries, |output| text(&entries, output));
    Ok(())
}

fn filter(audit: &Audit) -> Result<String, Failure> {
    let mut filter = String::new();
    if let Some(since) = audit.since {
        filter += &format!("&since={since}");
    }
    if let Some(who) = &audit.who {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" :-._".contains(&byte);
        if !who.bytes().all(is_plain) {
            let text = format!("{who:?} is nobody: write a name as `meshctl audit` shows it");
            return Err(Failure::Usage(text));
        }
        filter += &format!("&who={}", who.replace(' ', "%20"));
    }
    Ok(filter)
}

async fn newest(client: &ApiClient) -> Result<Vec<AuditEntry>, Failure> {
    let path = format!("/v1/audit?newest=true&limit={SHOWN}");
    let page: AuditPage = client.get(&path).await?;
    Ok(page.entries)
}

/// Returns all entries that pass the filter, and the last page without them.
async fn every(client: &ApiClient, filter: &str) -> Result<(Vec<AuditEntry>, AuditPage), Failure> {
    let mut entries = Vec::new();
    let mut after = 0;
    loop {
        let limit = AuditPage::LIMIT_MAX;
        let path = format!("/v1/audit?after={after}&limit={limit}{filter}");
        let mut page: AuditPage = client.get(&path).await?;
        entries.append(&mut page.entries);
        match page.next.filter(|next| *next > after) {
            Some(next) => after = next,
            None => return Ok((entries, page)),
        }
    }
}

/// What a check of the log found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Checked {
    whole: bool,
    entries: usize,
    first: u64,
    last: u64,
    last_hash: Digest,
    breaks: Vec<String>,
}

async fn verify(
    kept: Option<&(u64, Digest)>,
    client: &ApiClient,
    output: &Output,
) -> Result<(), Failure> {
    let (entries, page) = every(client, "").await?;
    let breaks = breaks(&entries, &page, kept);
    let checked = Checked {
        whole: breaks.is_empty(),
        entries: entries.len(),
        first: page.first,
        last: page.last,
        last_hash: page.last_hash,
        breaks: breaks.iter().map(ToString::to_string).collect(),
    };
    output.show("AuditCheck", &checked, |output| verdict(&checked, output));
    match checked.whole {
        true => Ok(()),
        false => Err(Failure::Wanting(String::new())),
    }
}

/// Follows the chain here: the coordinator's word is what is in question.
fn breaks(
    entries: &[AuditEntry],
    page: &AuditPage,
    kept: Option<&(u64, Digest)>,
) -> Vec<AuditBreak> {
    let mut chain = AuditChain::from(page.first);
    if let Some((number, hash)) = kept {
        chain = chain.with_kept(*number, *hash);
    }
    let mut breaks: Vec<_> = entries
        .iter()
        .filter_map(|entry| chain.follow(entry).err())
        .collect();
    breaks.extend(chain.end(page.last, page.last_hash).err());
    breaks
}

fn verdict(checked: &Checked, output: &Output) -> String {
    if !checked.whole {
        let lines = checked.breaks.iter();
        let lines = lines.map(|it| format!("{} {it}", output.paint(Tone::Bad, "✗")));
        return lines.collect::<Vec<_>>().join("\n");
    }
    let forgotten = match checked.first {
        0 | 1 => String::new(),
        first => format!("; entries before {first} are no longer kept by the coordinator"),
    };
    format!(
        "{} {} entries, each follows the one before{forgotten}\nlast {}:{}; keep it elsewhere, and \
         `meshctl audit --verify --kept` shows whether the log was written anew since",
        output.paint(Tone::Good, "✓"),
        checked.entries,
        checked.last,
        checked.last_hash
    )
}

fn text(entries: &[AuditEntry], output: &Output) -> String {
    if entries.is_empty() {
        return "there is no such entry".to_owned();
    }
    let blocks = entries.iter().map(|entry| block(entry, output));
    blocks.collect::<Vec<_>>().join("\n")
}

fn block(entry: &AuditEntry, output: &Output) -> String {
    let from = match entry.from.as_str() {
        "" => String::new(),
        from => format!(" from {from}"),
    };
    let refused = match entry.outcome {
        AuditOutcome::Done => String::new(),
        AuditOutcome::Refused => output.paint(Tone::Bad, " refused"),
    };
    let mut lines = vec![format!(
        "{} {} {}{refused} by {}{from}",
        output.paint(Tone::Faint, &format!("{:>5}", entry.number)),
        output.paint(Tone::Faint, &time(entry.at_secs)),
        entry.action,
        entry.who,
    )];
    if !entry.reason.is_empty() {
        lines.push(format!("      because: {}", plain(&entry.reason)));
    }
    for change in &entry.changes {
        let value = match (&change.before, &change.after) {
            (None, Some(after)) => format!("+ {}", plain(after)),
            (Some(before), None) => format!("- {}", plain(before)),
            (Some(before), Some(after)) => format!("{} → {}", plain(before), plain(after)),
            (None, None) => String::new(),
        };
        let (subject, field) = (plain(&change.subject), plain(&change.field));
        lines.push(format!("      {subject} {field}: {value}"));
    }
    lines.join("\n")
}

/// What somebody wrote must not steer the terminal of who reads it.
fn plain(text: &str) -> String {
    let shown = |it: char| if it.is_control() { ' ' } else { it };
    text.chars().map(shown).collect()
}

/// Reads a moment: a span before now such as 12h, or a time such as 2026-11-22T20:00:00Z.
///
/// # Errors
/// It is neither.
pub fn parse_since(text: &str) -> Result<u64, String> {
    if let Ok(span) = super::tokens::parse_span(text) {
        let now = runtime::clock::unix_now().as_secs();
        return Ok(now.saturating_sub(span));
    }
    let time = text.parse::<jiff::Timestamp>().map_err(|_| {
        format!("{text:?} is neither a span such as 12h nor a time such as 2026-11-22T20:00:00Z")
    })?;
    u64::try_from(time.as_second()).map_err(|_| "that was before 1970".to_owned())
}

/// Reads the number and hash of an entry, as `--verify` prints them.
///
/// # Errors
/// It is none.
pub fn parse_kept(text: &str) -> Result<(u64, Digest), String> {
    let bad = || format!("{text:?} is not NUMBER:HASH as `meshctl audit --verify` prints it");
    let (number, hash) = text.split_once(':').ok_or_else(bad)?;
    let number = number.parse().map_err(|_| bad())?;
    Ok((number, hash.parse().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::admin::AuditChange;
    use trust::audit::{BEFORE_THE_FIRST, audit_hash};

    fn log(count: u64) -> (Vec<AuditEntry>, AuditPage) {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for number in 1..=count {
            let mut entry = AuditEntry {
                number,
                at_secs: 0,
                who: "ops".into(),
                from: "192.0.2.1".into(),
                action: "host.labels".into(),
                outcome: AuditOutcome::Done,
                reason: "moved\u{1b}[31m".into(),
                changes: vec![AuditChange {
                    subject: "host a".into(),
                    field: "labels.role".into(),
                    before: Some("db".into()),
                    after: Some("web".into()),
                }],
                previous: entries.last().map_or(BEFORE_THE_FIRST, |it| it.hash),
                hash: BEFORE_THE_FIRST,
            };
            entry.hash = audit_hash(&entry);
            entries.push(entry);
        }
        let page = AuditPage {
            entries: Vec::new(),
            first: 1,
            last: count,
            last_hash: entries.last().map_or(BEFORE_THE_FIRST, |it| it.hash),
            next: None,
        };
        (entries, page)
    }

    #[test]
    fn a_break_is_named_by_its_number() {
        let (mut entries, page) = log(4);
        assert!(breaks(&entries, &page, None).is_empty());
        entries[1].who = "nobody".into();
        let found = breaks(&entries, &page, None);
        assert_eq!(found, [AuditBreak::Altered { number: 2 }]);
    }

    #[test]
    fn a_log_that_was_written_anew_differs_from_what_was_kept() {
        let (entries, page) = log(4);
        let kept = parse_kept(&format!("2:{}", entries[2].hash)).unwrap();
        let found = breaks(&entries, &page, Some(&kept));
        assert_eq!(found, [AuditBreak::NotAsKept { number: 2 }]);
        assert!(parse_kept("2").is_err());
    }

    #[test]
    fn an_entry_reads_as_what_who_and_why_and_steers_no_terminal() {
        let (entries, _) = log(1);
        let output = Output::new(false, crate::output::Color::Never);
        assert_eq!(
            text(&entries, &output),
            "    1 1970-01-01T00:00:00Z host.labels by ops from 192.0.2.1\n      \
             because: moved [31m\n      host a labels.role: db → web"
        );
    }

    #[test]
    fn moments_are_spans_or_times() {
        assert_eq!(parse_since("1970-01-02T00:00:00Z"), Ok(86_400));
        assert!(parse_since("1h").unwrap() > 1_700_000_000);
        assert!(parse_since("yesterday").is_err());
    }
}
