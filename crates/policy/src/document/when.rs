//! `when:` of a rule: `"22:00-06:00 Europe/Paris"`, or a mapping with days, time and zone.

use jiff::tz::TimeZoneDatabase;
use model::rule::{Days, Hours, TimeOfDay, When, ZoneName};

use super::reader::{Fields, Section, one_or_more, present, text};
use super::suggest::nearest;
use crate::diagnostic::{Complaint, Report, quoted};
use crate::window;
use crate::yaml::{Node, Value};

const FORM: &str = "write `\"22:00-06:00 Europe/Paris\"`, or \
                    `{ days: mon-fri, time: \"08:00-18:00\", zone: Europe/Paris }`";

/// Reads when a rule holds.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<When> {
    if let Value::Map(_) = node.value {
        return mapping(node, report);
    }
    let written = text(node, "`when`", report)?;
    let parsed = hours_and_zone(written);
    let (hours, zone) = report.check(node.place, parsed)?;
    let Some(zone) = zone else {
        report.error(node.place, no_zone());
        return None;
    };
    Some(When {
        days: Days::ALL,
        hours: Some(hours),
        zone,
    })
}

fn mapping(node: &Node, report: &mut Report<'_>) -> Option<When> {
    let fields = Fields::read(node, Section::When, report)?;
    let days = present(&fields, "days", report, days)?;
    let time = present(&fields, "time", report, |node, report| {
        let written = text(node, "`time`", report)?;
        report.check(node.place, hours_and_zone(written))
    })?;
    let zone = present(&fields, "zone", report, |node, report| {
        let written = text(node, "`zone`", report)?;
        report.check(node.place, zone_name(written))
    })?;
    let (hours, zone_of_time) = time.map_or((None, None), |(hours, zone)| (Some(hours), zone));
    if days.is_none() && hours.is_none() {
        let complaint = Complaint::new("`when` has neither `days` nor `time`").help(FORM);
        report.error(node.place, complaint);
        return None;
    }
    let zone = match (zone, zone_of_time) {
        (Some(_), Some(_)) => {
            let complaint = Complaint::new("the zone stands twice").help("leave one of them out");
            report.error(node.place, complaint);
            return None;
        }
        (zone, zone_of_time) => zone.or(zone_of_time),
    };
    let Some(zone) = zone else {
        report.error(node.place, no_zone());
        return None;
    };
    Some(When {
        days: days.unwrap_or(Days::ALL),
        hours,
        zone,
    })
}

fn no_zone() -> Complaint {
    Complaint::new("`when` does not say whose hours and days")
        .help("add the time zone: `Europe/Paris`, or `UTC`")
}

fn hours_and_zone(written: &str) -> Result<(Hours, Option<ZoneName>), Complaint> {
    let mut words = written.split_whitespace();
    let range = words.next().unwrap_or_default();
    let zone = words.next().map(zone_name).transpose()?;
    let hours = hours(range).filter(|_| words.next().is_none());
    let hours = hours.ok_or_else(|| {
        Complaint::new(format!("{} is not a time of day", quoted(written))).help(FORM)
    })?;
    Ok((hours, zone))
}

fn hours(range: &str) -> Option<Hours> {
    let (from, until) = range.split_once('-')?;
    let until = match until {
        "24:00" => "00:00",
        until => until,
    };
    Some(Hours {
        from: time_of_day(from)?,
        until: time_of_day(until)?,
    })
}

fn time_of_day(written: &str) -> Option<TimeOfDay> {
    let (hours, minutes) = written.split_once(':')?;
    let two = |digits: &str| -> Option<u16> {
        let is_right = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_right.then(|| digits.parse().ok())?
    };
    let minutes = two(minutes).filter(|minutes| *minutes < 60)?;
    TimeOfDay::from_minutes(60 * two(hours)? + minutes)
}

fn zone_name(written: &str) -> Result<ZoneName, Complaint> {
    let zone: ZoneName = written
        .parse()
        .map_err(|error: model::name::InvalidName| Complaint::new(error.to_string()))?;
    if window::zone(&zone).is_some() {
        return Ok(zone);
    }
    let known: Vec<String> = TimeZoneDatabase::bundled()
        .available()
        .map(|zone| zone.to_string())
        .collect();
    let complaint = Complaint::new(format!("there is no time zone {}", quoted(written)));
    Err(match nearest(written, known.iter().map(String::as_str)) {
        Some(meant) => complaint.suggest(Some(meant)),
        None => complaint.help("zones are those of the IANA database, such as `Europe/Paris`"),
    })
}

fn days(node: &Node, report: &mut Report<'_>) -> Option<Days> {
    let items = one_or_more(node, "`days`", Days::NAMES.len(), report)?;
    let mut bits = 0;
    for item in items {
        let written = text(item, "`days`", report)?;
        for part in written.split(',') {
            bits |= report.check(item.place, range_of_days(part.trim()))?;
        }
    }
    Days::from_bits(bits)
}

/// Reads `mon`, or `mon-fri`; `sat-mon` goes over the end of the week.
fn range_of_days(written: &str) -> Result<u8, Complaint> {
    let not_days = || {
        Complaint::new(format!("{} are not days of the week", quoted(written)))
            .help("write mon, tue, wed, thu, fri, sat, sun, or a range: `mon-fri`")
    };
    let day = |name: &str| {
        Days::NAMES
            .iter()
            .position(|it| *it == name)
            .ok_or_else(not_days)
    };
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let (first, last) = (day(first)?, day(last)?);
    let mut bits = 0;
    let mut at = first;
    loop {
        bits |= 1 << at;
        if at == last {
            return Ok(bits);
        }
        at = (at + 1) % Days::NAMES.len();
    }
}
