//! The state machine against links in virtual time.

use proptest::prelude::*;

use super::*;

/// A link, the peer behind it, and the time.
struct Link {
    path: PathMtu,
    now: Duration,
    /// Bytes of the largest datagram that passes, with its headers.
    underlay: u16,
    /// Of the host's own interface: larger ones do not leave.
    own: u16,
    delay: Duration,
    /// Which of so many probes are lost: the seed of the losses, and thousandths.
    losses: (u64, u64),
    answers: bool,
    sent: usize,
    under_way: Vec<(Duration, u32, u16)>,
}

const ALL: u16 = u16::MAX;
const TICK: Duration = Duration::from_millis(100);

impl Link {
    fn new(interface: u16, underlay: u16) -> Self {
        let mut path = PathMtu::new(interface, 1420, true);
        path.follow(false);
        Self {
            path,
            now: Duration::from_secs(1000),
            underlay,
            own: ALL,
            delay: Duration::from_millis(30),
            losses: (1, 0),
            answers: true,
            sent: 0,
            under_way: Vec::new(),
        }
    }

    fn is_lost(&mut self) -> bool {
        let (seed, per_mille) = &mut self.losses;
        // Knuth's MMIX generator.
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % 1000 < *per_mille
    }

    /// Lets time pass with a packet of so many bytes in each tenth of a second, if any.
    fn pass(&mut self, time: Duration, traffic: Option<usize>) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for (at, id, size) in std::mem::take(&mut self.under_way) {
                match at <= self.now {
                    true => self.path.handle_answer(id, size, self.now),
                    false => self.under_way.push((at, id, size)),
                }
            }
            if let Some(bytes) = traffic {
                self.path.note_sent(bytes, self.now);
            }
            self.ask();
        }
    }

    fn ask(&mut self) {
        while let Some(volley) = self.path.poll_volley(self.now) {
            for size in volley.sizes() {
                let datagram = size + IPV4_OVERHEAD;
                if datagram > self.own {
                    self.path.handle_refused(*size, self.now);
                    continue;
                }
                self.sent += 1;
                let is_lost = self.is_lost() || self.is_lost();
                if self.answers && datagram <= self.underlay && !is_lost {
                    self.under_way
                        .push((self.now + self.delay, volley.id, *size));
                }
            }
        }
    }

    fn standing(&self) -> Standing {
        self.path.report().standing
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn each_size_is_found_within_seconds() {
    for (interface, underlay, expected) in [
        (1420, 1500, 1420),
        (1420, 1480, 1420),
        (1420, 1460, 1400),
        (1420, 1400, 1340),
        (1420, 1399, 1320),
        (1420, 1280, 1220),
        (8920, 9000, 8920),
        (8920, 1500, 1440),
        (8920, 3900, 3840),
    ] {
        let mut link = Link::new(interface, underlay);
        link.pass(4 * SECOND, Some(100));
        assert_eq!(link.path.limit(false), expected, "{underlay}");
        assert_eq!(link.standing(), Standing::Proven);
        assert!(link.path.is_certain());
    }
}

#[test]
fn the_largest_is_used_after_two_round_trips() {
    let mut link = Link::new(8920, ALL);
    link.pass(4 * TICK, Some(100));
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (8920, Standing::Proven)
    );
}

#[test]
fn nothing_is_asked_without_traffic_nor_of_small_packets_once_it_is_known() {
    let mut link = Link::new(1420, 1500);
    link.pass(100 * SECOND, None);
    assert_eq!(link.sent, 0);
    link.pass(10 * SECOND, Some(100));
    let found = link.sent;
    link.pass(5000 * SECOND, Some(SMALL_BYTES));
    link.pass(5000 * SECOND, None);
    assert_eq!(link.sent, found);
    link.pass(100 * SECOND, Some(SMALL_BYTES + 1));
    assert!(
        (40..=60).contains(&(link.sent - found)),
        "{}",
        link.sent - found
    );
}

#[test]
fn a_peer_that_does_not_answer_keeps_what_is_assumed_and_is_asked_rarely() {
    let mut link = Link::new(8920, ALL);
    link.answers = false;
    link.pass(10 * SECOND, Some(1400));
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (1420, Standing::Assumed)
    );
    assert!(link.path.is_certain());
    assert_eq!(link.sent, usize::from(MAX_PROBES));
    link.pass(580 * SECOND, Some(1400));
    assert_eq!(link.sent, usize::from(MAX_PROBES));
    // It was upgraded, and begins a session.
    link.answers = true;
    link.path.handle_session();
    link.pass(4 * SECOND, Some(1400));
    assert_eq!(link.standing(), Standing::Proven);
}

#[test]
fn a_peer_of_another_program_is_never_asked() {
    let mut link = Link::new(1420, ALL);
    link.path = PathMtu::new(8920, 1420, false);
    link.pass(2000 * SECOND, Some(1400));
    assert_eq!((link.sent, link.path.limit(false)), (0, 1420));
    assert!(link.path.is_certain());
}

#[test]
fn a_black_hole_is_left_within_seconds() {
    let mut link = Link::new(1420, 1500);
    link.pass(10 * SECOND, Some(1400));
    link.underlay = 1400;
    link.pass(6 * SECOND, Some(1400));
    assert!(link.path.limit(false) <= 1340);
    link.pass(4 * SECOND, Some(1400));
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (1340, Standing::Proven)
    );
    assert_eq!(link.path.report().black_holes, 1);
}

#[test]
fn a_silence_of_everything_is_no_black_hole() {
    let mut link = Link::new(1420, 1500);
    link.pass(10 * SECOND, Some(1400));
    link.answers = false;
    link.pass(60 * SECOND, Some(1400));
    link.answers = true;
    link.pass(10 * SECOND, Some(1400));
    assert_eq!(
        (link.path.limit(false), link.path.report().black_holes),
        (1420, 0)
    );
}

#[test]
fn what_does_not_leave_the_host_is_known_at_once() {
    let mut link = Link::new(8920, ALL);
    link.own = 1500;
    link.pass(4 * TICK, Some(100));
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (1440, Standing::Proven)
    );
    link.own = 1400;
    link.path.handle_refused_datagrams(link.now);
    link.pass(2 * TICK, None);
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (1340, Standing::Proven)
    );
}

#[test]
fn a_path_that_has_grown_is_found_after_a_while() {
    let mut link = Link::new(8920, 1500);
    link.pass(10 * SECOND, Some(1400));
    link.underlay = 9000;
    link.pass(500 * SECOND, Some(1400));
    assert_eq!(link.path.limit(false), 1440);
    link.pass(110 * SECOND, Some(1400));
    assert_eq!(link.path.limit(false), 8920);
    assert_eq!(link.path.report().black_holes, 0);
}

#[test]
fn another_path_is_searched_anew_and_old_answers_do_not_count() {
    let mut link = Link::new(8920, ALL);
    link.pass(10 * SECOND, Some(1400));
    let late = link.path.round;
    link.path.follow(true);
    assert_eq!(
        (link.path.limit(false), link.path.is_certain()),
        (1420, false)
    );
    link.path.handle_answer(late, 8920, link.now);
    link.underlay = 1500;
    link.pass(TICK, Some(1400));
    link.path.handle_answer(late, 8920, link.now);
    link.pass(4 * SECOND, Some(1400));
    assert_eq!(
        link.path.limit(false),
        1420,
        "by IPv6: 20 bytes less than by IPv4"
    );
}

#[test]
fn a_path_that_is_too_narrow_for_ipv6_is_told_from_a_silent_peer() {
    let mut link = Link::new(1420, 1000);
    link.pass(10 * SECOND, Some(1400));
    assert_eq!(
        (link.path.limit(false), link.standing()),
        (1420, Standing::Narrow)
    );
    assert!(link.path.is_certain());
    let asked = link.sent;
    link.pass(500 * SECOND, Some(1400));
    assert_eq!(link.sent, asked);
}

#[test]
fn ipv6_may_always_send_its_smallest() {
    let mut link = Link::new(1420, 1280);
    link.pass(10 * SECOND, Some(1400));
    assert_eq!(
        (link.path.limit(false), link.path.limit(true)),
        (1220, 1280)
    );
}

fn largest(interface: u16, underlay: u16) -> u16 {
    let mut sizes = candidates(interface, IPV4_OVERHEAD);
    let largest = sizes.find(|size| size + IPV4_OVERHEAD <= underlay);
    largest.unwrap_or(0)
}

#[derive(Clone, Debug)]
struct Step {
    underlay: u16,
    lost_per_mille: u64,
    seconds: u32,
    traffic: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let traffic = prop_oneof![Just(None), Just(Some(100)), Just(Some(1500))];
    (1280..9100u16, 0..400u64, 1..900u32, traffic).prop_map(
        |(underlay, lost_per_mille, seconds, traffic)| Step {
            underlay,
            lost_per_mille,
            seconds,
            traffic,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_link_did_its_size_is_found_once_it_is_calm(
        interface in 1280..8921u16,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..8),
        last in 1280..9100u16,
    ) {
        let mut link = Link::new(interface, 1500);
        link.losses.0 = seed;
        for step in steps {
            (link.underlay, link.losses.1) = (step.underlay, step.lost_per_mille);
            let before = link.sent;
            link.pass(step.seconds * SECOND, step.traffic);
            prop_assert!(link.path.limit(false) <= usize::from(interface));
            // One volley at a time, and those of a search are few.
            let most = 40 * (1 + step.seconds as usize);
            prop_assert!(link.sent - before <= most, "{} probes", link.sent - before);
        }
        (link.underlay, link.losses.1) = (last, 0);
        // A black hole is left: nothing that is proven is larger than what passes.
        link.pass(12 * SECOND, Some(1500));
        if let Some(proven) = link.path.proven {
            prop_assert!(proven + IPV4_OVERHEAD <= last, "{proven} over {last}");
        }
        // In the end it is the largest that passes.
        link.pass(1300 * SECOND, Some(1500));
        prop_assert_eq!(link.path.limit(false), usize::from(largest(interface, last)));
        prop_assert_eq!(link.standing(), Standing::Proven);
    }
}
