//! Whether the window of a rule is open at some moment: its days and hours in its time zone, out of
//! the database that the program was built with.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use model::rule::{TimeOfDay, When, ZoneName};
use model::time::UnixTime;

use crate::reference::Effect;

/// A window with its zone found.
#[derive(Debug)]
pub(crate) struct Window {
    when: When,
    /// `None`: this program does not know it.
    zone: Option<TimeZone>,
}

impl Window {
    pub(crate) fn new(when: &When) -> Self {
        Self {
            when: when.clone(),
            zone: zone(&when.zone),
        }
    }

    /// Returns whether a rule of that effect holds. What cannot be told closes.
    pub(crate) fn is_open(&self, at: UnixTime, effect: Effect) -> bool {
        let local = self.zone.as_ref().and_then(|zone| local(zone, at));
        match local {
            Some((day, time)) => self.when.contains(day, time),
            None => effect == Effect::Deny,
        }
    }

    /// Returns the local time, for people: `tue 14:05`.
    pub(crate) fn shown(&self, at: UnixTime) -> Option<String> {
        let (day, time) = local(self.zone.as_ref()?, at)?;
        Some(format!(
            "{} {time}",
            model::rule::Days::NAMES[usize::from(day)]
        ))
    }
}

/// Finds a time zone, whatever the case of its name.
pub(crate) fn zone(name: &ZoneName) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name.as_str()).ok()
}

/// Reads `2026-11-23 23:30 Europe/Paris`.
pub fn moment(written: &str) -> Option<UnixTime> {
    let (local, zone) = written.rsplit_once(' ')?;
    let zone = self::zone(&zone.parse().ok()?)?;
    let local: jiff::civil::DateTime = local.trim().parse().ok()?;
    let moment = local.to_zoned(zone).ok()?;
    let seconds = u64::try_from(moment.timestamp().as_second()).ok()?;
    Some(UnixTime::from_secs(seconds))
}

/// Returns the day from Monday as 0, and the time of day.
fn local(zone: &TimeZone, at: UnixTime) -> Option<(u8, TimeOfDay)> {
    const SECONDS: i64 = 24 * 60 * 60;
    let unix = i64::try_from(at.as_secs()).ok()?;
    let offset = zone.to_offset(Timestamp::from_second(unix).ok()?);
    let local = unix + i64::from(offset.seconds());
    // 1970-01-01 was a Thursday.
    let day = u8::try_from((local.div_euclid(SECONDS) + 3).rem_euclid(7)).ok()?;
    let minute = u16::try_from(local.rem_euclid(SECONDS) / 60).ok()?;
    Some((day, TimeOfDay::from_minutes(minute)?))
}

#[cfg(test)]
mod tests {
    use model::rule::{Days, Hours};

    use super::*;

    fn window(zone: &str, from: u16, until: u16) -> Window {
        let time = |minutes| TimeOfDay::from_minutes(minutes).unwrap();
        Window::new(&When {
            days: Days::ALL,
            hours: Some(Hours {
                from: time(from),
                until: time(until),
            }),
            zone: zone.parse().unwrap(),
        })
    }

    fn at(text: &str) -> UnixTime {
        let time: Timestamp = text.parse().unwrap();
        UnixTime::from_secs(u64::try_from(time.as_second()).unwrap())
    }

    #[test]
    fn hours_are_those_of_the_zone_in_winter_and_in_summer() {
        let morning = window("Europe/Paris", 8 * 60, 9 * 60);
        assert!(morning.is_open(at("2026-01-15T07:30:00Z"), Effect::Allow));
        assert!(!morning.is_open(at("2026-01-15T06:30:00Z"), Effect::Allow));
        assert!(morning.is_open(at("2026-07-15T06:30:00Z"), Effect::Allow));
        assert!(!morning.is_open(at("2026-07-15T07:30:00Z"), Effect::Allow));
        assert_eq!(
            morning.shown(at("2026-11-23T08:42:00Z")).as_deref(),
            Some("mon 09:42")
        );
    }

    #[test]
    fn a_zone_that_is_not_known_closes() {
        let nowhere = window("Nowhere/City", 0, 0);
        assert!(!nowhere.is_open(at("2026-01-15T07:30:00Z"), Effect::Allow));
        assert!(nowhere.is_open(at("2026-01-15T07:30:00Z"), Effect::Deny));
    }
}
