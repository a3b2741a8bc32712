//! `cargo xtask demo`: a fleet out of nothing, told as a short story with real output.

mod narrator;
mod story;

use lab::{Lab, Programs, kept_labs, remove_lab};

use crate::cargo::build_programs;
use crate::failure::{Doing, Failure};
use narrator::Narrator;

/// Tells the story; with `keep`, the fleet stays and the reader is told how to talk to it.
pub(crate) fn run(keep: bool) -> Result<(), Failure> {
    // Somebody who says where the programs are has built them.
    if !Programs::are_named() {
        build_programs()?;
    }
    let lab = Lab::new().map_err(|error| Failure::new(error.to_string()))?;
    let narrator = Narrator::new();
    let stage = story::tell(&lab, &narrator).map_err(|error| Failure::new(error.to_string()))?;
    if keep {
        stage.write_entrances(&lab).doing("write the scripts")?;
        lab.keep().doing("keep the fleet")?;
        narrator.hand_over(lab.directory());
    } else {
        drop(stage);
        drop(lab);
        narrator.close();
    }
    Ok(())
}

/// Ends the fleets that earlier demos kept.
pub(crate) fn remove() -> Result<(), Failure> {
    let kept = kept_labs().doing("look for kept fleets")?;
    if kept.is_empty() {
        println!("No fleet is kept.");
    }
    for id in kept {
        remove_lab(&id).doing(format_args!("remove {id}"))?;
        println!("Removed {id}.");
    }
    Ok(())
}
