//! The catalogue as a table, between two marks of a page that people write.

use std::fs;
use std::path::Path;

use super::catalogue::Metric;

/// Writes the metrics as a table in Markdown.
pub fn table(catalogue: &[Metric]) -> String {
    let mut text = String::from("| metric | kind | labels | what it is |\n|---|---|---|---|\n");
    for metric in catalogue {
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.help
        );
    }
    text
}

/// Returns the page with another text between the marks of a section.
///
/// # Panics
/// The page has no such section.
pub fn replace_section(page: &str, section: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- begin {section} -->\n"),
        format!("<!-- end {section} -->"),
    );
    let (before, rest) = page.split_once(&begin).expect("the page has the section");
    let (_, after) = rest.split_once(&end).expect("the section has an end");
    format!("{before}{begin}{text}{end}{after}")
}

/// Returns whether a section of a page says something else than `text`; with `write`, it says so then.
///
/// # Panics
/// The page cannot be read or written, or has no such section.
pub fn is_stale(path: &Path, section: &str, text: &str, write: bool) -> bool {
    let page = fs::read_to_string(path).expect("the page is there");
    let current = replace_section(&page, section, text);
    if write {
        fs::write(path, &current).expect("the page can be written");
        return false;
    }
    page != current
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::catalogue! {
        /// Packets.
        PACKETS: Counter = "x_packets_total", by "direction";
    }

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let expected = format!("a\n<!-- begin x -->\n{}<!-- end x -->\nb\n", table(ALL));
        assert_eq!(replace_section(page, "x", &table(ALL)), expected);
        assert!(expected.contains("| `x_packets_total` | counter | `direction` | Packets. |"));
    }
}
