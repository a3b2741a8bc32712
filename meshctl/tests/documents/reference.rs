//! docs/commands.md: every verb with its arguments, as the command line has them.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};
use meshctl::failure::EXIT_CODES;

const HEAD: &str = "\
# Commands

Written by `cargo xtask generate` from the command line itself. What to do with them: [operate](operate.md),
[policy](policy.md), [troubleshooting](troubleshooting.md). The same as manual pages: `man meshctl`, `man meshctl-policy-apply`.

With `--json` every command prints one document on standard output, `{\"version\", \"kind\", \"data\"}`, described by
[meshctl.schema.json](meshctl.schema.json). A command that fails before it has an answer prints one of kind `Error`, with `code`,
`exit_code`, `message` and `diagnostics`. A verb that repeats itself (`--watch`) prints one a round.
";

/// Returns the whole page.
pub(crate) fn text(command: &Command) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Exit codes\n\n| code | word | when |\n|---|---|---|\n");
    for (code, word, when) in EXIT_CODES {
        let _ = writeln!(text, "| {code} | `{word}` | {when} |");
    }
    text.push_str("\n## Everywhere\n\n");
    let global = command.get_arguments().filter(|it| it.is_global_set());
    push_arguments(&mut text, global);
    for verb in verbs(command) {
        push_verb(&mut text, verb, "meshctl", 2);
    }
    text
}

fn push_verb(text: &mut String, verb: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", verb.get_name());
    let heading = "#".repeat(level.min(3));
    let about = verb.get_about().map(ToString::to_string);
    let _ = write!(
        text,
        "\n{heading} {name}\n\n{}.\n",
        about.unwrap_or_default()
    );
    let own = || verb.get_arguments().filter(|it| is_own(it));
    if verbs(verb).next().is_none() {
        let _ = write!(text, "\n```\n{}\n```\n", usage(verb, &name));
    }
    if own().next().is_some() {
        text.push('\n');
        push_arguments(text, own());
    }
    for below in verbs(verb) {
        push_verb(text, below, &name, level + 1);
    }
}

fn usage(verb: &Command, name: &str) -> String {
    let own = verb.get_arguments().filter(|it| is_own(it));
    let (placed, named): (Vec<&Arg>, Vec<&Arg>) = own.partition(|it| it.is_positional());
    let mut usage = name.to_owned();
    if !named.is_empty() {
        usage.push_str(" [OPTIONS]");
    }
    for argument in placed {
        let many = match argument.get_num_args() {
            Some(count) if count.max_values() > 1 => "...",
            _ => "",
        };
        let value = value_of(argument);
        let _ = if argument.is_required_set() {
            write!(usage, " <{value}>{many}")
        } else {
            write!(usage, " [{value}]{many}")
        };
    }
    usage
}

fn push_arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| argument | what it is |\n|---|---|\n");
    for argument in arguments {
        let _ = writeln!(text, "| {} | {} |", called(argument), described(argument));
    }
}

fn called(argument: &Arg) -> String {
    if argument.is_positional() {
        return format!("`{}`", value_of(argument));
    }
    let short = argument.get_short().map(|it| format!("-{it}"));
    let long = argument.get_long().map(|it| format!("--{it}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let takes_value = argument.get_action().takes_values();
    let value = if takes_value {
        format!(" {}", value_of(argument))
    } else {
        String::new()
    };
    format!("`{}{value}`", names.join(", "))
}

fn value_of(argument: &Arg) -> String {
    match argument.get_value_names() {
        Some(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            names.join(" ")
        }
        None => argument.get_id().as_str().to_uppercase(),
    }
}

fn described(argument: &Arg) -> String {
    let mut text = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|it| format!("`{}`", it.get_name()))
        .collect();
    if argument.get_action().takes_values() && !choices.is_empty() {
        let _ = write!(text, ": {}", choices.join(", "));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|it| it.to_string_lossy().into_owned())
        .filter(|it| !it.is_empty())
        .collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, " [env: `{}`]", variable.to_string_lossy());
    }
    // A bar would begin the next cell.
    text.replace('|', "\\|")
}

fn is_own(argument: &Arg) -> bool {
    !argument.is_global_set()
        && !argument.is_hide_set()
        && !matches!(
            argument.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        )
}

fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}
