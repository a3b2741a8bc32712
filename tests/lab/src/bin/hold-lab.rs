//! Makes a small lab and holds it until killed: the owner that a test of the lab kills.

#![allow(clippy::print_stdout, reason = "the test reads the lab's id")]

use lab::{Lab, LabError};

fn main() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let machine = lab.namespace("a")?;
    lab.underlay()?.attach(&machine, "eth0")?;
    let _sleeper = machine.launch("sleep").arg("1000").spawn("sleeper")?;
    println!("{}", lab.id());
    loop {
        std::thread::park();
    }
}
