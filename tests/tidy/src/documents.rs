//! Rules about what is written down: decisions, the README, and words that belong to one machine.

use crate::Tracked;

const DECISIONS: &str = "docs/decisions/";
const DECISIONS_INDEX: &str = "docs/decisions/README.md";
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Paths of the machines that the project is written on; split, so that this file may hold them.
const FORBIDDEN: &[&str] = &[
    concat!("/", "work/main"),
    concat!("/", "work/shared"),
    concat!("/tmp/", "brief"),
    concat!("/tmp/", "issues"),
];

/// Pages of decisions that the index does not link.
pub fn unlisted_decisions(files: &[Tracked]) -> Vec<String> {
    let index = files
        .iter()
        .find(|file| file.path == DECISIONS_INDEX)
        .map_or("", |file| file.text.as_str());
    files
        .iter()
        .filter_map(|file| file.path.strip_prefix(DECISIONS))
        .filter(|page| page.ends_with(".md") && *page != "README.md")
        .filter(|page| !index.contains(&format!("]({page})")))
        .map(|page| format!("{DECISIONS}{page}: add a line that links it to {DECISIONS_INDEX}"))
        .collect()
}

/// Commands that every reader of the README must find there.
pub fn missing_commands(files: &[Tracked]) -> Vec<String> {
    let Some(readme) = files.iter().find(|file| file.path == "README.md") else {
        return Vec::new();
    };
    ["./demo", "./test"]
        .iter()
        .filter(|command| !readme.text.contains(*command))
        .map(|command| {
            format!("README.md: name `{command}`, one of the two commands to start with")
        })
        .collect()
}

/// Paths of one machine in files that everybody gets.
pub fn forbidden_words(files: &[Tracked]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
                complaints.push(format!(
                    "{}:{}: `{word}` exists on one machine only: name what is meant by a path \
                     inside the repository, or leave it out",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    complaints
}

/// Sources of crates other than crates.io, which others could not build from.
pub fn foreign_registries(files: &[Tracked]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let lines = file.text.lines().enumerate();
        let foreign = |line: &str| match file.path.as_str() {
            "Cargo.lock" => line.starts_with("source = ") && !line.contains(REGISTRY),
            ".cargo/config.toml" => line.starts_with("[source") || line.starts_with("[registr"),
            _ => false,
        };
        complaints.extend(
            lines
                .filter(|(_, line)| foreign(line))
                .map(|(index, line)| {
                    format!(
                        "{}:{}: `{line}`: use crates.io; a mirror belongs in the settings of the \
                 machine that needs it (~/.cargo/config.toml)",
                        file.path,
                        index + 1
                    )
                }),
        );
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_nobody_links_is_found() {
        let files = [
            Tracked::new(DECISIONS_INDEX, "- [One](one.md)\n"),
            Tracked::new("docs/decisions/one.md", ""),
            Tracked::new("docs/decisions/two.md", ""),
        ];
        let complaints = unlisted_decisions(&files);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("docs/decisions/two.md:"));
    }

    #[test]
    fn a_readme_without_the_demo_is_found() {
        let files = [Tracked::new("README.md", "Run `./test`.\n")];
        assert_eq!(missing_commands(&files).len(), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let text = format!("see {}/DESIGN.md\n", FORBIDDEN[1]);
        let files = [Tracked::new("docs/a.md", &text)];
        assert_eq!(forbidden_words(&files).len(), 1);
    }

    #[test]
    fn a_mirror_of_the_registry_is_found() {
        let lock =
            format!("source = \"{REGISTRY}\"\nsource = \"registry+https://mirror.example/\"\n");
        let files = [
            Tracked::new("Cargo.lock", &lock),
            Tracked::new(".cargo/config.toml", "[source.crates-io]\n"),
        ];
        assert_eq!(foreign_registries(&files).len(), 2);
    }
}
