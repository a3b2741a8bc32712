//! Times and shares as people write them: `250ms`, `2s`, `20%`. What would be dangerous is refused
//! with its bounds.

use std::fmt;
use std::time::Duration;

use super::reader::text;
use crate::diagnostic::{Complaint, Report, quoted};
use crate::yaml::Node;

/// What a setting may be, and why no more and no less.
pub(super) struct Bounds<T> {
    pub(super) least: T,
    pub(super) most: T,
    pub(super) why: &'static str,
}

const MINUTE_SECS: u64 = 60;

/// Reads a time such as `2s` within bounds.
pub(super) fn duration(
    node: &Node,
    key: &str,
    bounds: &Bounds<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let written = text(node, &format!("`{key}`"), report)?;
    let parsed = parse_duration(written).ok_or_else(|| {
        Complaint::new(format!("{} is not a time", quoted(written))).help(format!(
            "write a whole number with ms, s, m or h: `{key}: 2s`"
        ))
    });
    let duration = report.check(node.place, parsed)?;
    if duration < bounds.least || duration > bounds.most {
        let (least, most) = (Shown(bounds.least), Shown(bounds.most));
        report.error(
            node.place,
            beyond(key, Shown(duration), least, most, bounds.why),
        );
        return None;
    }
    Some(duration)
}

/// Reads a share such as `20%` within bounds.
pub(super) fn percent(
    node: &Node,
    key: &str,
    bounds: &Bounds<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let written = text(node, &format!("`{key}`"), report)?;
    let digits = written.strip_suffix('%').map(str::trim_end).and_then(whole);
    let parsed = digits.ok_or_else(|| {
        Complaint::new(format!("{} is not a share", quoted(written))).help(format!(
            "write a whole number of per cent: `{key}: {}%`",
            bounds.most
        ))
    });
    let percent = report.check(node.place, parsed)?;
    if percent < bounds.least || percent > bounds.most {
        let [value, least, most] = [percent, bounds.least, bounds.most].map(|it| format!("{it}%"));
        report.error(node.place, beyond(key, value, least, most, bounds.why));
        return None;
    }
    Some(percent)
}

/// Reads a count within bounds.
pub(super) fn count(
    node: &Node,
    key: &str,
    bounds: &Bounds<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let written = text(node, &format!("`{key}`"), report)?;
    let parsed = whole(written).ok_or_else(|| {
        Complaint::new(format!("{} is not a whole number", quoted(written)))
            .help(format!("write `{key}: {}`", bounds.least.max(1)))
    });
    let count = report.check(node.place, parsed)?;
    if count < bounds.least || count > bounds.most {
        let complaint = beyond(key, count, bounds.least, bounds.most, bounds.why);
        report.error(node.place, complaint);
        return None;
    }
    Some(count)
}

fn beyond<T: fmt::Display>(key: &str, value: T, least: T, most: T, why: &str) -> Complaint {
    Complaint::new(format!("`{key}` is {value}, and may be {least} to {most}")).help(why)
}

fn whole(written: &str) -> Option<u32> {
    let is_plain = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| written.parse().ok())?
}

fn parse_duration(written: &str) -> Option<Duration> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = written.split_at(digits);
    let number = u64::from(whole(number)?);
    match unit.trim_start() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * MINUTE_SECS)),
        "h" => Some(Duration::from_secs(number * MINUTE_SECS * MINUTE_SECS)),
        _ => None,
    }
}

/// As the language writes it, in the largest unit that is exact.
pub(crate) struct Shown(pub(crate) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis >= length && millis.is_multiple_of(length) {
                return write!(f, "{}{unit}", millis / length);
            }
        }
        write!(f, "{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        for (written, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("5 m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(written),
                Some(Duration::from_millis(millis)),
                "{written}"
            );
        }
        for written in ["", "2", "s", "-1s", "1.5s", "2d", "99999999999s", "２s"] {
            assert_eq!(parse_duration(written), None, "{written}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_written() {
        for written in ["250ms", "2s", "90s", "5m", "1h", "1500ms"] {
            assert_eq!(Shown(parse_duration(written).unwrap()).to_string(), written);
        }
    }
}
