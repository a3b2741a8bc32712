//! `meshctl completion`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::{Arguments, CompletionShell};
use crate::output::Output;

/// Prints the script of a shell.
pub fn print(shell: CompletionShell, output: &Output) {
    output.print(&script(shell));
}

fn script(shell: CompletionShell) -> Vec<u8> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "meshctl", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_verb() {
        use clap::ValueEnum;
        for shell in CompletionShell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            let verbs = Arguments::command();
            for verb in verbs.get_subcommands().filter(|it| !it.is_hide_set()) {
                assert!(script.contains(verb.get_name()), "{shell:?} {verb}");
            }
        }
    }
}
