//! Running a target on its seeds, its committed inputs, and damage done to both.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::mutation::Mutator;
use crate::{Target, corpus};

/// Runs a target on everything. Returns how many inputs it was given.
///
/// # Panics
/// When an input breaks the target: it is then in the directory `failures`, and the message says
/// what to do. When the committed inputs cannot be read.
pub fn replay(target: &Target, failures: &Path) -> usize {
    let committed = corpus::read(target).expect("every target has a directory in corpus/");
    let seeds = (target.seeds)();
    let inputs: Vec<&[u8]> = seeds
        .iter()
        .chain(&committed)
        .map(|input| input.bytes.as_slice())
        .collect();
    run(target, b"", failures);
    for input in &inputs {
        run(target, input, failures);
    }
    let mut mutator = Mutator::new(target.name);
    for _ in 0..target.mutations {
        run(target, &mutator.damaged(&inputs), failures);
    }
    1 + inputs.len() + target.mutations
}

fn run(target: &Target, input: &[u8], failures: &Path) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if outcome.is_ok() {
        return;
    }
    let digest = trust::sha256(input).to_string();
    let path = failures.join(format!("{}-{}", target.name, &digest[..12]));
    fs::create_dir_all(failures).expect("the directory for failures can be made");
    fs::write(&path, input).expect("the directory for failures can be written");
    panic!(
        "`{}` breaks on {} ({} bytes): fix it, then keep the input in corpus/{}/",
        target.name,
        path.display(),
        input.len(),
        target.name,
    );
}
