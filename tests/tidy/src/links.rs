//! Rules about the pages for people: links lead somewhere, and every page is found from the first one.

use std::collections::BTreeSet;

use crate::Tracked;

const INDEX: &str = "docs/README.md";

/// Links of pages that lead to no file of the repository, or to no heading of a page.
pub fn broken_links(files: &[Tracked]) -> Vec<String> {
    let mut complaints = Vec::new();
    for page in pages(files) {
        for target in links(&page.text) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => page.path.clone(),
                path => resolved(&page.path, path),
            };
            let found = files.iter().find(|file| file.path == path);
            let is_there = found.is_some() || files.iter().any(|file| is_below(&file.path, &path));
            let has_heading = heading.is_empty()
                || found.is_some_and(|file| headings(&file.text).contains(heading));
            if !is_there || !has_heading {
                complaints.push(format!(
                    "{}: `{target}` leads nowhere: name a file, and a heading that it has",
                    page.path
                ));
            }
        }
    }
    complaints
}

/// Pages that the index of the documentation does not link.
pub fn unlisted_pages(files: &[Tracked]) -> Vec<String> {
    let index = files.iter().find(|file| file.path == INDEX);
    let index = index.map_or("", |file| file.text.as_str());
    let linked: BTreeSet<String> = links(index).map(|it| resolved(INDEX, it)).collect();
    let pages = pages(files).map(|page| page.path.as_str());
    pages
        .filter(|path| path.starts_with("docs/") && path.matches('/').count() == 1)
        .filter(|path| *path != INDEX && !linked.contains(*path))
        .map(|path| format!("{path}: add a line that links it to {INDEX}"))
        .collect()
}

fn pages(files: &[Tracked]) -> impl Iterator<Item = &Tracked> {
    let is_page = |path: &str| path == "README.md" || path.starts_with("docs/");
    files
        .iter()
        .filter(move |file| file.path.ends_with(".md") && is_page(&file.path))
}

/// Targets in the repository, outside of code.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    let prose = prose.flat_map(|part| part.split('`').step_by(2));
    let after = prose.flat_map(|part| part.split("](").skip(1));
    let targets = after.filter_map(|rest| Some(rest.split_once(')')?.0));
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

fn resolved(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The names of headings, as renderers of Markdown make them.
fn headings(text: &str) -> BTreeSet<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let titles = prose.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|title| {
            let title = title.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|letter| match letter {
                ' ' => Some('-'),
                letter if letter.is_alphanumeric() || "-_".contains(letter) => Some(letter),
                _ => None,
            });
            kept.collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let files = [
            Tracked::new(
                "docs/a.md",
                "[b](b.md#two-words) [c](c.md) [b](b.md#three)\n```\n[d](d.md)\n```\n\
                 [e](https://example.net/) [up](../README.md) [man](man) [own](#one) `[x](y)` [`b`](b.md)\n# One\n",
            ),
            Tracked::new("docs/b.md", "## Two words\n"),
            Tracked::new("docs/man/x.1", ""),
            Tracked::new("README.md", ""),
        ];
        let complaints = broken_links(&files);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("`c.md`") && complaints[1].contains("`b.md#three`"));
    }

    #[test]
    fn a_page_that_nobody_finds_is_found() {
        let files = [
            Tracked::new("docs/README.md", "[a](a.md)\n"),
            Tracked::new("docs/a.md", ""),
            Tracked::new("docs/b.md", ""),
            Tracked::new("docs/decisions/c.md", ""),
        ];
        assert_eq!(unlisted_pages(&files).len(), 1);
    }
}
