//! When a rule holds: days of the week and hours of the day, somewhere.

use std::fmt;

use crate::name::text_name;

/// Days and hours at which a rule matches; at other times it is as if it were not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// The days on which the window begins.
    pub days: Days,
    /// The hours of such a day; `None`: all of it.
    pub hours: Option<Hours>,
    /// Whose days and hours.
    pub zone: ZoneName,
}

/// From a time of day to another. One that ends no later than it begins reaches into the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hours {
    /// Included.
    pub from: TimeOfDay,
    /// Not included.
    pub until: TimeOfDay,
}

/// Minutes since midnight, below 24:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

/// Days of the week; at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Days(u8);

text_name!(
    /// A time zone of the IANA database, such as `Europe/Paris`, or `UTC`.
    ZoneName, "time zone", check_zone, "^[A-Za-z0-9_+/-]{1,64}$"
);

fn check_zone(text: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+/-".contains(&byte);
    if !(1..=64).contains(&text.len()) || !text.bytes().all(fits) {
        return Err("it has to be one of the IANA database, such as Europe/Paris");
    }
    Ok(())
}

impl TimeOfDay {
    /// Minutes of a day.
    pub const MINUTES: u16 = 24 * 60;

    /// Returns a time of day; `None`: it is 24:00 or later.
    pub const fn from_minutes(minutes: u16) -> Option<Self> {
        if minutes < Self::MINUTES {
            Some(Self(minutes))
        } else {
            None
        }
    }

    /// Returns the minutes since midnight.
    pub const fn minutes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Days {
    /// Every day.
    pub const ALL: Self = Self(0b111_1111);

    /// The names, from Monday on.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    /// Returns days by their bits, Monday being bit 0; `None`: there is none, or more than seven.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.0 {
            None
        } else {
            Some(Self(bits))
        }
    }

    /// Returns the bits, Monday being bit 0.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether a day is among them, counted from Monday as 0.
    pub const fn contains(self, day: u8) -> bool {
        day < 7 && self.0 >> day & 1 == 1
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = (0..7).filter(|day| self.contains(*day));
        let names: Vec<&str> = days.map(|day| Self::NAMES[usize::from(day)]).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl When {
    /// Returns whether the window is open, on a day counted from Monday as 0 at some time of it.
    pub fn contains(&self, day: u8, time: TimeOfDay) -> bool {
        let Some(Hours { from, until }) = self.hours else {
            return self.days.contains(day);
        };
        let yesterday = (day + 6) % 7;
        if from < until {
            self.days.contains(day) && from <= time && time < until
        } else {
            self.days.contains(day) && from <= time || self.days.contains(yesterday) && time < until
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::ALL || self.hours.is_none() {
            write!(f, "{} ", self.days)?;
        }
        if let Some(Hours { from, until }) = self.hours {
            write!(f, "{from}-{until} ")?;
        }
        write!(f, "{}", self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(hour: u16, minute: u16) -> TimeOfDay {
        TimeOfDay::from_minutes(60 * hour + minute).unwrap()
    }

    fn when(days: u8, hours: Option<(u16, u16)>) -> When {
        When {
            days: Days::from_bits(days).unwrap(),
            hours: hours.map(|(from, until)| Hours {
                from: time(from, 0),
                until: time(until, 0),
            }),
            zone: "UTC".parse().unwrap(),
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        // Friday's night.
        let night = when(1 << 4, Some((22, 6)));
        assert!(night.contains(4, time(22, 0)));
        assert!(night.contains(5, time(5, 59)));
        assert!(!night.contains(5, time(6, 0)));
        assert!(!night.contains(4, time(5, 0)));
        assert!(!night.contains(5, time(22, 0)));
        // Sunday's reaches into Monday.
        assert!(when(1 << 6, Some((22, 6))).contains(0, time(1, 0)));
        assert_eq!(night.to_string(), "fri 22:00-06:00 UTC");
    }

    #[test]
    fn hours_that_end_where_they_begin_are_a_day() {
        let day = when(1, Some((8, 8)));
        assert!(day.contains(0, time(8, 0)) && day.contains(1, time(7, 59)));
        assert!(!day.contains(0, time(7, 59)) && !day.contains(1, time(8, 0)));
        assert!(when(1, None).contains(0, time(23, 59)));
        assert!(!when(1, None).contains(1, time(0, 0)));
    }
}
