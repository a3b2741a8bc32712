//! The sizes that are worth a try: those that real links and clouds have. What lies between two of
//! them costs less than asking for it would.

/// Bytes of IP packets that underlays carry, the largest first. Where clouds say so is listed in
/// `docs/decisions/the-path-says-how-large.md`.
const UNDERLAYS: [u16; 15] = [
    9000, // jumbo frames as most switches and interfaces are set; EC2 has 9001
    8896, // Google Cloud's largest
    8500, // between VPCs of AWS: transit gateways, peering across regions
    3900, // Azure's largest with its Mellanox interfaces; newer ones have 9000
    1500, // Ethernet (RFC 894)
    1492, // PPPoE (RFC 2516 7)
    1480, // IP in IP (RFC 2003, RFC 4213)
    1460, // Google Cloud unless configured
    1450, // VXLAN over Ethernet (RFC 7348 5)
    1420, // WireGuard over Ethernet
    1400, // where Azure's virtual network begins to cut packets
    1380, // WireGuard over Google Cloud
    1340, // IPv6's smallest with a packet of IPv6's smallest in it, over IPv4
    1300, // Google Cloud's smallest; between a region of AWS and its Outposts or Wavelength Zones
    1280, // the smallest that IPv6 works over (RFC 8200 5)
];

/// Probes that leave together.
const VOLLEY_MAX: usize = UNDERLAYS.len() + 1;

/// Returns the sizes of packets that may pass, the largest first: what the interface takes, and
/// what the smaller ones of the underlays would.
pub(super) fn candidates(interface: u16, overhead: u16) -> impl Iterator<Item = u16> + use<> {
    let smaller = UNDERLAYS
        .into_iter()
        .map(move |underlay| underlay - overhead);
    std::iter::once(interface).chain(smaller.filter(move |size| *size < interface))
}

/// Probes that leave together, under one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Volley {
    pub(crate) id: u32,
    sizes: [u16; VOLLEY_MAX],
    count: usize,
}

impl Volley {
    pub(super) fn new(id: u32, sizes: impl IntoIterator<Item = u16>) -> Self {
        let mut volley = Self {
            id,
            sizes: [0; VOLLEY_MAX],
            count: 0,
        };
        for size in sizes.into_iter().take(VOLLEY_MAX) {
            volley.sizes[volley.count] = size;
            volley.count += 1;
        }
        volley
    }

    /// The largest first, so that its answer is the first to come.
    pub(crate) fn sizes(&self) -> &[u16] {
        &self.sizes[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_the_largest_and_each_comes_once() {
        for (interface, overhead) in [(1420, 60), (1420, 80), (8920, 80), (1280, 80), (1440, 60)] {
            let sizes: Vec<_> = candidates(interface, overhead).collect();
            assert_eq!(sizes[0], interface);
            assert!(sizes.is_sorted_by(|one, next| one > next), "{sizes:?}");
            assert_eq!(Volley::new(0, sizes.clone()).sizes(), sizes);
        }
    }
}
