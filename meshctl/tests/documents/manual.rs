//! Manual pages, section 1: one for the program and one for each verb.

use std::collections::BTreeMap;

use clap::Command;
use clap_mangen::Man;

/// Returns every page by its path.
pub(crate) fn pages(command: &Command) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    add(command, "", &mut pages);
    pages
}

fn add(command: &Command, parent: &str, pages: &mut BTreeMap<String, String>) {
    let name = if parent.is_empty() {
        command.get_name().to_owned()
    } else {
        format!("{parent}-{}", command.get_name())
    };
    let mut page = Vec::new();
    // Without a date and of any version, so that a page changes when its command does.
    let named: &'static str = name.clone().leak();
    let command = command.clone().name(named).version(None);
    Man::new(command.clone())
        .manual("mesh")
        .source("mesh")
        .render(&mut page)
        .unwrap();
    let text = String::from_utf8(page).unwrap();
    pages.insert(format!("docs/man/{name}.1"), text);
    for verb in verbs(&command) {
        add(verb, &name, pages);
    }
}

fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}
