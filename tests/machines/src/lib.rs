//! Whole machines under a real systemd: what `apt install` and `systemctl` do with the packages.
//!
//! A [`Machine`] is a Debian root booted by `systemd-nspawn` in a namespace of a [`lab::Lab`], with
//! an `eth0` on the lab's network, a TUN device, and nothing of ours in it yet. It boots in half a
//! second, reboots, loses power, and is gone with its lab, however the test ends. [`Site`] is a
//! coordinator and hosts installed from the packages, as operators have them.
//!
//! ```no_run
//! # fn main() -> Result<(), lab::LabError> {
//! let lab = lab::Lab::new()?;
//! let network = lab.underlay()?;
//! let machine = machines::Machine::boot(&lab, &network, "alpha")?;
//! machine.install(&machines::Packages::find()?.meshd)?;
//! machine.run("systemctl is-active meshd")?;
//! # Ok(())
//! # }
//! ```
//!
//! What it needs: root, the Debian packages `systemd-container` and `mmdebstrap`, a mirror of Debian
//! the first time (the root is kept in `target/machines`), and the packages that
//! `cargo xtask package --profile dev` makes, with those of the next version that upgrades are tested
//! with. A .deb of any other number or contents is made by [`repack`].

mod image;
mod machine;
mod packages;
mod repacking;
mod site;

pub use image::{Image, Release};
pub use machine::{Machine, MachinePlan};
pub use packages::Packages;
pub use repacking::repack;
pub use site::{Member, Site};
