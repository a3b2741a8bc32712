//! Pages of metrics as a scraper reads them, and more strictly: a page that is not in the text format of
//! Prometheus 0.0.4 in every line is none.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::LabError;

/// A page that is right in every line.
#[derive(Debug, Default)]
pub struct MetricsPage {
    /// The kind of each metric.
    kinds: BTreeMap<String, String>,
    /// The value of each series, by its name and labels as they are written.
    series: BTreeMap<String, f64>,
}

impl MetricsPage {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// The first line that is wrong, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let mut page = Self::default();
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            let wrong = |why: &str| LabError::new(format!("{why}: {line:?}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
                let is_new = helped.insert(name.to_owned());
                if !is_new || help.is_empty() {
                    return Err(wrong("helped twice, or with nothing"));
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                let is_known = matches!(kind, "counter" | "gauge" | "histogram");
                if !is_known || !helped.contains(name) || !is_name(name) {
                    return Err(wrong("not a type of a metric that has a help"));
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return Err(wrong("a counter ends with _total, and nothing else does"));
                }
                current = name.to_owned();
                let before = page.kinds.insert(current.clone(), kind.to_owned());
                if before.is_some() {
                    return Err(wrong("a metric that was there already"));
                }
            } else {
                page.add(line, &current).map_err(|why| wrong(&why))?;
            }
        }
        match text.ends_with('\n') && !page.kinds.is_empty() {
            true => Ok(page),
            false => Err(LabError::new("the page is empty or cut off")),
        }
    }

    fn add(&mut self, line: &str, current: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let value: f64 = value.parse().map_err(|_| "not a number")?;
        let name = series.split('{').next().unwrap_or(series);
        let is_histogram = self.kinds.get(current).is_some_and(|it| it == "histogram");
        let family = match is_histogram {
            false => name,
            true => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .ok_or("no part of a histogram")?,
        };
        if family != current {
            return Err(format!("a series of another metric than {current}"));
        }
        if let Some(labels) = series.strip_prefix(name).filter(|it| !it.is_empty()) {
            check_labels(labels)?;
        }
        match self.series.insert(series.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err("a series that was there already".to_owned()),
        }
    }

    /// Whether the page has a metric of this name, with or without series.
    pub fn has(&self, metric: &str) -> bool {
        self.kinds.contains_key(metric)
    }

    /// How many series it has.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The value of a series, by its name and labels as they are written.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn value(&self, series: &str) -> Result<f64, LabError> {
        let found = self.series.get(series).copied();
        found.ok_or_else(|| LabError::new(format!("there is no series {series}")))
    }

    /// The values of all series that are written so at their beginning, added up.
    pub fn sum(&self, beginning: &str) -> f64 {
        let series = self.series.iter();
        let wanted = series.filter(|(name, _)| name.starts_with(beginning));
        wanted.map(|(_, value)| value).sum()
    }

    /// Counters that are smaller here than they were before.
    pub fn gone_back_since(&self, before: &Self) -> Vec<String> {
        let rises = |series: &str| {
            let name = series.split('{').next().unwrap_or(series);
            name.ends_with("_total") || name.ends_with("_bucket") || name.ends_with("_count")
        };
        let series = self.series.iter().filter(|(name, _)| rises(name));
        let fallen = series.filter(|(name, value)| {
            let then = before.series.get(*name);
            then.is_some_and(|then| *value < then)
        });
        fallen.map(|(name, _)| name.clone()).collect()
    }
}

fn is_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(letters) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// `{name="value",name="value"}`, whose values have nothing that needs escaping.
fn check_labels(text: &str) -> Result<(), String> {
    let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    let inner = inner.ok_or("labels without braces")?;
    for pair in inner.split(',') {
        let (name, value) = pair.split_once('=').ok_or("a label without a value")?;
        let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let value = value.ok_or("a value without quotes")?;
        if !is_name(name) || value.contains(['"', '\\']) {
            return Err(format!("{name} is no label, or {value} no value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\"} 2\n\
        # HELP h How long.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 0.5\nh_count 1\n";

    #[test]
    fn a_page_is_read() {
        let page = MetricsPage::parse(GOOD).expect("it is good");
        assert_eq!(page.value("a_total{x=\"1\",y=\"\"}").ok(), Some(2.0));
        assert!(page.has("h") && !page.has("h_sum"));
        assert_eq!((page.sum("a_total{x=\"1\","), page.sum("b_")), (2.0, 0.0));
        let later = MetricsPage::parse(&GOOD.replace(" 2\n", " 1\n")).expect("it is good");
        assert_eq!(later.gone_back_since(&page), ["a_total{x=\"1\",y=\"\"}"]);
    }

    #[test]
    fn a_page_that_is_wrong_somewhere_is_none() {
        for (right, wrong) in [
            (" 2\n", " two\n"),
            (" 2\n", "\n"),
            ("{x=\"1\"", "{x=1"),
            ("# TYPE a_total counter", "# TYPE a_total gauge"),
            ("# TYPE a_total counter", "# TYPE b_total counter"),
            ("h_sum 0.5", "h 0.5"),
            ("h_sum 0.5", "b 0.5"),
            ("# HELP h How long.\n", ""),
            ("h_count 1\n", "h_count 1"),
        ] {
            let text = GOOD.replace(right, wrong);
            assert!(MetricsPage::parse(&text).is_err(), "{wrong:?}");
        }
    }
}
