//! Ports and ranges of ports: `22`, `8000-8100`, `any`.

use model::limits::Limits;
use model::rule::PortRange;

use super::reader::{one_or_more, text};
use crate::diagnostic::{Complaint, Report, quoted};
use crate::yaml::{Node, Value};

/// Reads `tcp:` or `udp:` of a rule.
pub(super) fn ranges(node: &Node, key: &str, report: &mut Report<'_>) -> Option<Vec<PortRange>> {
    if matches!(&node.value, Value::Text { text, .. } if &**text == "any") {
        return Some(vec![PortRange::ALL]);
    }
    let what = format!("`{key}`");
    let items = one_or_more(node, &what, Limits::PORT_RANGES_PER_LIST, report)?;
    let ranges: Vec<_> = items.iter().map(|item| range(item, key, report)).collect();
    ranges.into_iter().collect()
}

fn range(node: &Node, key: &str, report: &mut Report<'_>) -> Option<PortRange> {
    let written = text(node, "a port or range of ports", report)?;
    report.check(node.place, parse_range(written, key))
}

fn parse_range(written: &str, key: &str) -> Result<PortRange, Complaint> {
    if written == "any" {
        let message = "`any` stands alone, not in a list";
        return Err(Complaint::new(message).help(format!("write `{key}: any`")));
    }
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let (first, last) = (parse(first.trim())?, parse(last.trim())?);
    if first > last {
        return Err(
            Complaint::new(format!("the range {} runs backwards", quoted(written)))
                .help(format!("did you mean `{last}-{first}`?")),
        );
    }
    Ok(PortRange { first, last })
}

/// Reads one port.
///
/// # Errors
/// Says which numbers are ports.
pub(super) fn parse(written: &str) -> Result<u16, Complaint> {
    let digits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    match written.parse::<u16>() {
        Ok(0) => Err(
            Complaint::new("port 0 is not a port that anything listens on")
                .help("ports are 1 to 65535; write `any` for all of them"),
        ),
        Ok(port) if digits => Ok(port),
        Err(_) if digits => Err(Complaint::new(format!("{} is not a port", quoted(written)))
            .help("ports are 1 to 65535")),
        _ => Err(Complaint::new(format!("{} is not a port", quoted(written)))
            .help("ports are numbers, 1 to 65535, or ranges in rules: `[22, \"8000-8100\"]`")),
    }
}
