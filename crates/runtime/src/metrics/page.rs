//! One page of metrics, in the text format of Prometheus (0.0.4) or of OpenMetrics (1.0.0).

use std::fmt::{self, Display, Write as _};

use super::catalogue::{Kind, Metric};
use super::histogram::{BOUNDS, Histogram};

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For everybody.
    Prometheus,
    /// For whoever asks for it.
    OpenMetrics,
}

impl Format {
    /// Chooses by what the asker accepts.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Returns what the asker is told that it gets.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// What may be negative or broken.
    Fraction(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Fraction(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Fraction(value) => value.fmt(f),
        }
    }
}

/// A page that is being written, metric by metric.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

/// A metric of a page, whose series are being written.
#[derive(Debug)]
pub struct Series<'a> {
    metric: Metric,
    text: &'a mut String,
}

impl Page {
    /// Begins a page.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
        }
    }

    /// Begins a metric. One without series is on the page all the same.
    pub fn metric(&mut self, metric: Metric) -> Series<'_> {
        let (family, kind) = self.spelled(&metric);
        let text = &mut self.text;
        line(
            text,
            format_args!("# HELP {family} {}", Escaped(metric.help)),
        );
        line(text, format_args!("# TYPE {family} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, metric.unit()) {
            line(text, format_args!("# UNIT {family} {unit}"));
        }
        Series { metric, text }
    }

    /// Writes a metric that has one series.
    pub fn one(&mut self, metric: Metric, value: impl Into<Value>) {
        self.metric(metric).add([], value);
    }

    /// Writes a metric that has one series, or none where nothing is known.
    pub fn perhaps(&mut self, metric: Metric, value: Option<impl Into<Value>>) {
        let mut series = self.metric(metric);
        if let Some(value) = value {
            series.add([], value);
        }
    }

    /// Ends the page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }

    /// What the comments call a metric: OpenMetrics names the family, Prometheus the series.
    fn spelled(&self, metric: &Metric) -> (&'static str, &'static str) {
        let family = |suffix: &str| metric.name.strip_suffix(suffix).unwrap_or(metric.name);
        match (self.format, metric.kind) {
            (Format::OpenMetrics, Kind::Counter) => (family("_total"), "counter"),
            (Format::OpenMetrics, Kind::Info) => (family("_info"), "info"),
            (Format::Prometheus, Kind::Info) => (metric.name, "gauge"),
            (_, kind) => (metric.name, kind.name()),
        }
    }
}

impl Series<'_> {
    /// Writes one series; `values` are those of the metric's labels, in their order.
    ///
    /// # Panics
    /// There are more or fewer values than labels.
    pub fn add<const N: usize>(&mut self, values: [&str; N], value: impl Into<Value>) -> &mut Self {
        let name = self.metric.name;
        let labels = self.labels(values, None);
        line(self.text, format_args!("{name}{labels} {}", value.into()));
        self
    }

    /// Writes a histogram.
    ///
    /// # Panics
    /// As [`Series::add`].
    pub fn add_histogram<const N: usize>(
        &mut self,
        values: [&str; N],
        histogram: &Histogram,
    ) -> &mut Self {
        let name = self.metric.name;
        let counts = histogram.cumulative();
        let count = counts[BOUNDS.len()];
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        for (bound, count) in bounds.zip(counts) {
            let labels = self.labels(values, Some(("le", bound)));
            line(self.text, format_args!("{name}_bucket{labels} {count}"));
        }
        let labels = self.labels(values, None);
        let sum = histogram.sum().as_secs_f64();
        line(self.text, format_args!("{name}_sum{labels} {sum}"));
        line(self.text, format_args!("{name}_count{labels} {count}"));
        self
    }

    fn labels<const N: usize>(&self, values: [&str; N], extra: Option<(&str, &str)>) -> String {
        let names = self.metric.labels;
        assert_eq!(names.len(), N, "the labels of {}", self.metric.name);
        let pairs = names.iter().copied().zip(values).chain(extra);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}=\"{}\"", EscapedValue(value)))
            .collect();
        match pairs.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", pairs.join(",")),
        }
    }
}

fn line(text: &mut String, what: fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes everything");
}

/// A help text; help is ours, and of one line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, false, f)
    }
}

/// A label's value.
struct EscapedValue<'a>(&'a str);

impl Display for EscapedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, true, f)
    }
}

fn escape(text: &str, quotes: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '"' if quotes => f.write_str("\\\"")?,
            other => f.write_char(other)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    crate::catalogue! {
        /// Packets.
        PACKETS: Counter = "x_packets_total", by "direction";
        /// Build.
        BUILD: Info = "x_build_info", by "version";
        /// Time.
        TIME: Histogram = "x_time_seconds";
        /// When.
        WHEN: Gauge = "x_when_timestamp_seconds";
    }

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.metric(PACKETS).add(["in"], 3_u64).add(["out"], 4_u64);
        page.metric(BUILD).add(["1\"\\\n"], 1_u64);
        page.perhaps(WHEN, None::<u64>);
        page.finish()
    }

    #[test]
    fn everybody_gets_the_format_of_prometheus() {
        let expected = "# HELP x_packets_total Packets.\n# TYPE x_packets_total counter\n\
            x_packets_total{direction=\"in\"} 3\nx_packets_total{direction=\"out\"} 4\n\
            # HELP x_build_info Build.\n# TYPE x_build_info gauge\n\
            x_build_info{version=\"1\\\"\\\\\\n\"} 1\n\
            # HELP x_when_timestamp_seconds When.\n# TYPE x_when_timestamp_seconds gauge\n";
        assert_eq!(page(Format::Prometheus), expected);
        assert_eq!(Format::accepted(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }

    #[test]
    fn whoever_asks_gets_openmetrics() {
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let text = page(Format::accepted(Some(accept)));
        assert!(text.contains("# TYPE x_packets counter\n"), "{text}");
        assert!(text.contains("x_packets_total{direction=\"in\"} 3\n"));
        assert!(text.contains("# TYPE x_build info\nx_build_info{"));
        assert!(text.contains("# UNIT x_when_timestamp_seconds seconds\n"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_metric_without_series_is_there_all_the_same() {
        let mut page = Page::new(Format::Prometheus);
        for metric in ALL {
            page.metric(*metric);
        }
        let text = page.finish();
        let is_there = |metric: &Metric| text.contains(&format!("# TYPE {} ", metric.name));
        assert!(ALL.iter().all(is_there), "{text}");
    }

    #[test]
    fn a_histogram_has_buckets_a_sum_and_a_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        let mut page = Page::new(Format::Prometheus);
        page.metric(TIME).add_histogram([], &histogram);
        let text = page.finish();
        assert!(text.contains("x_time_seconds_bucket{le=\"0.001\"} 0\n"));
        assert!(text.contains("x_time_seconds_bucket{le=\"0.005\"} 1\n"));
        assert!(text.contains("x_time_seconds_bucket{le=\"+Inf\"} 1\n"));
        assert!(text.contains("x_time_seconds_sum 0.002\nx_time_seconds_count 1\n"));
    }
}
