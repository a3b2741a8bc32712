//! What a metric is, before anybody has measured it.

/// One metric, as the documentation and each page name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As it is asked for: of a counter, with `_total`.
    pub name: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// A sentence or two for people.
    pub help: &'static str,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
}

/// How values move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up only, until the process ends.
    Counter,
    /// Up and down.
    Gauge,
    /// How often something took how long: `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1; its labels tell.
    Info,
}

impl Metric {
    /// Returns the unit, which the name says.
    pub fn unit(&self) -> Option<&'static str> {
        let family = self.name.strip_suffix("_total").unwrap_or(self.name);
        let units = ["seconds", "bytes"];
        units.into_iter().find(|unit| {
            let rest = family.strip_suffix(unit);
            rest.is_some_and(|rest| rest.ends_with('_'))
        })
    }
}

impl Kind {
    /// Returns what documents call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// Declares a catalogue: a constant for each metric, whose doc comment is its help, and `ALL` of them.
///
/// ```ignore
/// catalogue! {
///     /// Hosts of the fleet.
///     HOSTS: Gauge = "coordinator_hosts", by "state";
/// }
/// ```
#[macro_export]
macro_rules! catalogue {
    ($($(#[doc = $help:literal])+ $metric:ident: $kind:ident = $name:literal $(, by $($label:literal),+)?;)+) => {
        $(
            $(#[doc = $help])+
            #[allow(unreachable_pub, reason = "from where it is reached is the module's to say")]
            pub const $metric: $crate::metrics::Metric = $crate::metrics::Metric {
                name: $name,
                kind: $crate::metrics::Kind::$kind,
                help: concat!($($help),+).trim_ascii(),
                labels: &[$($($label),+)?],
            };
        )+

        /// All of them, in the order of the pages.
        #[allow(unreachable_pub, reason = "from where it is reached is the module's to say")]
        pub const ALL: &[$crate::metrics::Metric] = &[$($metric),+];
    };
}

#[cfg(test)]
mod tests {
    crate::catalogue! {
        /// How much
        /// was sent.
        SENT: Counter = "x_sent_bytes_total", by "to", "kind";
        /// How long.
        TIME: Histogram = "x_time_seconds";
        /// Bytes, by its name alone.
        ODD: Gauge = "x_kilobytes";
    }

    #[test]
    fn a_catalogue_says_what_its_comments_say() {
        assert_eq!(SENT.help, "How much was sent.");
        assert_eq!(SENT.labels, ["to", "kind"]);
        assert_eq!(ALL.len(), 3);
    }

    #[test]
    fn a_unit_is_a_word_of_the_name() {
        assert_eq!(SENT.unit(), Some("bytes"));
        assert_eq!(TIME.unit(), Some("seconds"));
        assert_eq!(ODD.unit(), None);
    }
}
