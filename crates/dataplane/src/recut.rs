//! A super-packet that the device turned out not to take, cut into the packets that it was joined
//! from: some kernels offer to take packets joined, and then refuse them (virtio's headers were checked
//! in several wrong ways between Linux 6.1 and 6.11).

use crate::coalescer::Joins;
use crate::drops::DropReason;
use crate::offload::{Segmentation, VirtioHeader};
use crate::packet::Headers;
use crate::segments::Segments;

/// Hands out the packets of a super-packet of [`crate::Coalescer`], each as its headers and its
/// payload. One that stands for itself only is handed out as it is.
///
/// # Errors
/// It is no such packet; nothing was handed out.
pub fn recut(
    header: VirtioHeader,
    packet: &[u8],
    mut deliver: impl FnMut(&[u8], &[u8]),
) -> Result<(), DropReason> {
    let Some(segmentation) = header.segmentation()? else {
        deliver(packet, &[]);
        return Ok(());
    };
    let headers = Headers::parse(packet)?;
    let mut segments = Segments::new(header, segmentation, &headers, packet)?;
    while let Some((headers, payload)) = segments.next() {
        deliver(headers, payload);
    }
    Ok(())
}

impl Joins {
    /// Returns whether a packet with this header is one of those.
    pub fn include(self, header: VirtioHeader) -> bool {
        match header.segmentation() {
            Ok(Some(Segmentation::TcpV4 | Segmentation::TcpV6)) => self.tcp,
            Ok(Some(Segmentation::Udp)) => self.udp,
            Ok(None) | Err(_) => true,
        }
    }

    /// Returns these without those of the kind of a packet with this header.
    pub fn without(mut self, header: VirtioHeader) -> Self {
        match header.segmentation() {
            Ok(Some(Segmentation::TcpV4 | Segmentation::TcpV6)) => self.tcp = false,
            Ok(Some(Segmentation::Udp)) => self.udp = false,
            Ok(None) | Err(_) => {}
        }
        self
    }
}
