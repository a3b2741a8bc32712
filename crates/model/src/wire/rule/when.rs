//! When a rule holds.

use crate::rule::{Days, Hours, TimeOfDay, When};
use crate::wire::{WireError, field, generated};

impl From<When> for generated::When {
    fn from(when: When) -> Self {
        Self {
            days: when.days.bits().into(),
            hours: when.hours.map(|hours| generated::Hours {
                from: hours.from.minutes().into(),
                until: hours.until.minutes().into(),
            }),
            zone: when.zone.into(),
        }
    }
}

impl TryFrom<generated::When> for When {
    type Error = WireError;

    fn try_from(message: generated::When) -> Result<Self, WireError> {
        let days = u8::try_from(message.days).ok().and_then(Days::from_bits);
        let days = days.ok_or_else(|| {
            WireError::new(
                "When.days",
                format!("{} are not days of a week", message.days),
            )
        })?;
        Ok(Self {
            days,
            hours: message.hours.map(TryInto::try_into).transpose()?,
            zone: field::parsed("When.zone", &message.zone)?,
        })
    }
}

impl TryFrom<generated::Hours> for Hours {
    type Error = WireError;

    fn try_from(message: generated::Hours) -> Result<Self, WireError> {
        Ok(Self {
            from: time_of_day("Hours.from", message.from)?,
            until: time_of_day("Hours.until", message.until)?,
        })
    }
}

fn time_of_day(field: &'static str, minutes: u32) -> Result<TimeOfDay, WireError> {
    let time = u16::try_from(minutes)
        .ok()
        .and_then(TimeOfDay::from_minutes);
    time.ok_or_else(|| WireError::new(field, format!("a day has no minute {minutes}")))
}
