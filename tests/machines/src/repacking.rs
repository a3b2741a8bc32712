//! Packages of other numbers and contents, made on a machine out of one that was built: what it is
//! upgraded to, or what is wrong with an upgrade.

use std::path::Path;

use lab::LabError;

use crate::machine::{Machine, seen_from_inside};

/// Unpacks a .deb on the machine, gives it another number, changes it by a script that runs in its
/// root, and packs it again. Returns where it is, as the machine sees it.
///
/// # Errors
///
/// The script fails, or the disk is full.
pub fn repack(
    machine: &Machine,
    package: &Path,
    number: &str,
    change: &str,
) -> Result<String, LabError> {
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('_').next().unwrap_or_default();
    let path = format!("/root/{name}_{number}.deb");
    machine.run(&format!(
        "rm -rf /root/package
         dpkg-deb -R {} /root/package
         cd /root/package
         sed -i 's/^Version: .*/Version: {number}/' DEBIAN/control
         {change}
         dpkg-deb -Zgzip -z1 -b /root/package {path}
         rm -rf /root/package",
        seen_from_inside(package)?,
    ))?;
    Ok(path)
}

impl Machine {
    /// Installs a package that lies on the machine itself, whatever number the installed one has.
    ///
    /// # Errors
    ///
    /// `apt-get` fails.
    pub fn install_own(&self, path: &str) -> Result<String, LabError> {
        self.run(&format!(
            "apt-get install -q -y --allow-downgrades -o Dpkg::Use-Pty=0 {path} 2>&1"
        ))
    }

    /// Installs or upgrades an rpm that lies in the target directory, by options of `rpm`, with its
    /// scripts and without looking for what it depends on.
    ///
    /// # Errors
    ///
    /// `rpm` fails.
    pub fn rpm(&self, options: &str, package: &Path) -> Result<String, LabError> {
        let path = seen_from_inside(package)?;
        self.run(&format!("rpm {options} --nodeps {path} 2>&1"))
    }
}
