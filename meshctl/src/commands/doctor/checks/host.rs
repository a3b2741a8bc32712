//! The machine: disk, clock, certificate, TUN, kernel.

use super::super::facts::{Facts, TunNode};
use super::super::finding::Finding;
use crate::output::{bytes, span};

/// Free bytes below which the next map may not fit.
const FREE_BYTES_MIN: u64 = 16 << 20;
const FREE_FILES_MIN: u64 = 64;

pub(super) fn disk(facts: &Facts) -> Finding {
    const CHECK: &str = "disk";
    const WHY: &str = "meshd enforces only what is on the disk: it stays with the map that it has";
    let state = match &facts.state_dir {
        Ok(state) => state,
        Err(why) => return Finding::skipped(CHECK, why.clone()),
    };
    let shown = state.path.display();
    if state.is_read_only {
        return Finding::failure(
            CHECK,
            format!("{shown} is on a file system that is mounted read-only"),
            WHY,
            "`dmesg` says whether the disk failed; mount it read-write again",
        );
    }
    if state.free_bytes == 0 || state.free_files == Some(0) {
        return Finding::failure(
            CHECK,
            format!("the disk of {shown} is full"),
            WHY,
            "make room; meshd goes on by itself",
        );
    }
    if state.is_foreign || state.mode & 0o077 != 0 {
        return Finding::failure(
            CHECK,
            format!(
                "{shown} has mode {:o} or another owner than root",
                state.mode
            ),
            "the host's private keys are in it",
            format!(
                "`chown root: {shown} && chmod 700 {shown}`, and `meshctl keys rotate` if others had a look"
            ),
        );
    }
    if let Some((file, mode)) = state.exposed.first() {
        return Finding::failure(
            CHECK,
            format!("{shown}/{file} has mode {mode:o}"),
            "the host's private keys may be in it",
            format!("`chmod 600 {shown}/*`, and `meshctl keys rotate` if others had a look"),
        );
    }
    if state.free_bytes < FREE_BYTES_MIN || state.free_files.is_some_and(|it| it < FREE_FILES_MIN) {
        return Finding::warning(
            CHECK,
            format!(
                "{} are left on the disk of {shown}",
                bytes(state.free_bytes)
            ),
            WHY,
            "make room",
        );
    }
    Finding::ok(
        CHECK,
        format!("{shown} has {} left", bytes(state.free_bytes)),
    )
}

/// When this program was written: no clock is right that is before it.
const WRITTEN_SECS: u64 = 1_790_000_000; // 2026-09-21
/// How far clocks may be apart; the daemon alarms from there.
const SKEW_SECS_MAX: u64 = 300;

pub(super) fn clock(facts: &Facts) -> Finding {
    const CHECK: &str = "clock";
    const WHY: &str = "certificates look expired, or not valid yet, and joins and renewals fail";
    const ADVICE: &str = "`timedatectl set-ntp true`, or set the clock by hand";
    let ahead = facts.daemon.as_ref().ok();
    let ahead = ahead.and_then(|it| it.detail.as_ref()?.clock_ahead_secs);
    if facts.now_secs < WRITTEN_SECS {
        let what = "this machine's clock is before this program was written";
        return Finding::failure(CHECK, what, WHY, ADVICE);
    }
    match ahead {
        Some(ahead) if ahead.unsigned_abs() > SKEW_SECS_MAX => {
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            let what = format!(
                "this machine's clock is {} {way} the coordinator's",
                span(ahead.unsigned_abs())
            );
            Finding::failure(CHECK, what, WHY, ADVICE)
        }
        Some(_) => Finding::ok(CHECK, "the clock is the coordinator's, within five minutes"),
        None => match facts.clock_is_kept {
            Ok(false) => Finding::warning(
                CHECK,
                "nothing keeps this machine's clock right (timedatectl)",
                WHY,
                ADVICE,
            ),
            Ok(true) => Finding::ok(CHECK, "the clock is kept right by NTP"),
            Err(ref why) => Finding::skipped(CHECK, why.clone()),
        },
    }
}

/// What is left of a certificate's day when its renewal has been failing for long.
const CERTIFICATE_SECS_MIN: u64 = 6 * 3600;

pub(super) fn certificate(facts: &Facts) -> Finding {
    const CHECK: &str = "certificate";
    let detail = facts.daemon.as_ref().ok().and_then(|it| it.detail.as_ref());
    let Some(expires) = detail.and_then(|it| it.certificate_expires_secs) else {
        return Finding::skipped(CHECK, "meshd does not tell of one");
    };
    match expires.checked_sub(facts.now_secs) {
        None | Some(0) => Finding::failure(
            CHECK,
            format!(
                "the host's certificate expired {} ago",
                span(facts.now_secs - expires)
            ),
            "tunnels live on; the coordinator tells this host nothing new before it is renewed",
            "it is renewed by itself once a coordinator can be reached: see that check and the clock's",
        ),
        Some(left) if left < CERTIFICATE_SECS_MIN => Finding::warning(
            CHECK,
            format!(
                "the host's certificate expires in {} and was not renewed at half of its life",
                span(left)
            ),
            "afterwards the coordinator tells this host nothing new",
            "it is renewed by itself once a coordinator can be reached: see that check",
        ),
        Some(left) => Finding::ok(CHECK, format!("the certificate is good for {}", span(left))),
    }
}

pub(super) fn tun(facts: &Facts) -> Finding {
    const CHECK: &str = "tun";
    const WHY: &str = "the overlay's interface is a TUN device";
    match &facts.tun {
        TunNode::Opens => Finding::ok(CHECK, "/dev/net/tun can be used"),
        TunNode::Missing => Finding::failure(
            CHECK,
            "there is no /dev/net/tun",
            WHY,
            "`modprobe tun`; in a container: give it that device (--device /dev/net/tun)",
        ),
        TunNode::NoDevice => Finding::failure(
            CHECK,
            "/dev/net/tun is no device of the kernel's, or its module is missing",
            WHY,
            "`modprobe tun`, or `mknod /dev/net/tun c 10 200`; after a kernel upgrade: reboot",
        ),
        TunNode::Refused(why) => Finding::failure(
            CHECK,
            format!("/dev/net/tun may not be used: {why}"),
            WHY,
            "in a container: allow the device and CAP_NET_ADMIN; under systemd: DeviceAllow=/dev/net/tun rw",
        ),
        TunNode::Unknown => Finding::skipped(CHECK, "only root may use /dev/net/tun"),
    }
}

/// UDP_SEGMENT and UDP_GRO came with these (udp(7)); TUN devices took UDP super-packets with 6.2.
const UDP_SEGMENTS: (u32, u32) = (5, 0);
const TUN_UDP_SEGMENTS: (u32, u32) = (6, 2);

pub(super) fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    const WHY: &str = "each packet costs system calls and walks of its own";
    let mut parts = facts.kernel.split(|it: char| !it.is_ascii_digit());
    let mut next = || parts.next()?.parse::<u32>().ok();
    let (Some(major), Some(minor)) = (next(), next()) else {
        return Finding::skipped(CHECK, format!("Linux {} is no number", facts.kernel));
    };
    let version = (major, minor);
    let lacks = |what: &str, since: (u32, u32)| {
        let what = format!("Linux {} has no {what}", facts.kernel);
        let advice = format!("Linux {}.{} or later is faster", since.0, since.1);
        Finding::warning(CHECK, what, WHY, advice)
    };
    if version < UDP_SEGMENTS {
        lacks("UDP segmentation and coalescing", UDP_SEGMENTS)
    } else if version < TUN_UDP_SEGMENTS {
        lacks("UDP super-packets on TUN devices", TUN_UDP_SEGMENTS)
    } else {
        Finding::ok(CHECK, format!("Linux {} has the offloads", facts.kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    fn disk_with(change: impl FnOnce(&mut super::super::super::facts::StateDirectory)) -> Finding {
        let mut facts = healthy::facts();
        change(facts.state_dir.as_mut().unwrap());
        disk(&facts)
    }

    #[test]
    fn a_disk_that_takes_nothing_or_shows_keys_fails() {
        for finding in [
            disk_with(|state| state.is_read_only = true),
            disk_with(|state| state.free_bytes = 0),
            disk_with(|state| state.free_files = Some(0)),
            disk_with(|state| state.mode = 0o755),
            disk_with(|state| state.is_foreign = true),
            disk_with(|state| state.exposed = vec![("identity".into(), 0o644)]),
        ] {
            assert_eq!(finding.outcome, Outcome::Failure, "{finding:?}");
        }
        let little = disk_with(|state| state.free_bytes = 1 << 20);
        assert_eq!(little.outcome, Outcome::Warning);
    }

    #[test]
    fn a_clock_that_is_off_fails_by_whatever_tells() {
        let mut facts = healthy::facts();
        healthy::detail(&mut facts).clock_ahead_secs = Some(-3600);
        let finding = clock(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("1h00m behind"), "{finding:?}");
        healthy::detail(&mut facts).clock_ahead_secs = None;
        facts.clock_is_kept = Ok(false);
        assert_eq!(clock(&facts).outcome, Outcome::Warning);
        facts.now_secs = 0;
        assert_eq!(clock(&facts).outcome, Outcome::Failure);
    }

    #[test]
    fn a_certificate_is_told_early_and_late() {
        let mut facts = healthy::facts();
        let now = facts.now_secs;
        healthy::detail(&mut facts).certificate_expires_secs = Some(now + 3600);
        assert_eq!(certificate(&facts).outcome, Outcome::Warning);
        healthy::detail(&mut facts).certificate_expires_secs = Some(now - 60);
        let finding = certificate(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("1m00s ago"), "{finding:?}");
    }

    #[test]
    fn each_way_to_have_no_tun_fails() {
        for node in [
            TunNode::Missing,
            TunNode::NoDevice,
            TunNode::Refused("not permitted".into()),
        ] {
            let mut facts = healthy::facts();
            facts.tun = node;
            assert_eq!(tun(&facts).outcome, Outcome::Failure);
        }
    }

    #[test]
    fn an_old_kernel_is_slow() {
        for (version, said) in [("4.18.0-553.el8", "UDP segm"), ("5.15.0-91", "TUN devices")] {
            let mut facts = healthy::facts();
            facts.kernel = version.into();
            let finding = kernel(&facts);
            assert_eq!(finding.outcome, Outcome::Warning);
            assert!(finding.what.contains(said), "{finding:?}");
        }
    }
}
