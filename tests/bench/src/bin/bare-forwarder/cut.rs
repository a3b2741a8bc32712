//! What the kernel hands out at once, cut into the packets that it stands for.

use crate::checksum::{Sum, write_ip};
use crate::datagrams::Outbox;
use crate::seal::Keys;

/// In front of each packet of the device (virtio 1.3, 5.1.6).
pub(crate) const VIRTIO_HEADER_LEN: usize = 10;
/// Room for the longest packet and its header.
pub(crate) const PACKET_BYTES_MAX: usize = VIRTIO_HEADER_LEN + 65535;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 5;
const IP_LEN: usize = 20;
/// Both IPv4's and TCP's longest.
const HEADERS_MAX: usize = 80;

const FIN_AND_PSH: u8 = 0x09; // RFC 9293 3.1
const CWR: u8 = 0x80; // RFC 3168 6.1

/// Seals each packet that a read gave. What it cannot cut it drops: it is for measurements, which send
/// IPv4 without options.
#[inline]
pub(crate) fn cut(read: &mut [u8], outbox: &mut Outbox, keys: &mut Keys) {
    let Some((header, packet)) = read.split_first_chunk_mut::<VIRTIO_HEADER_LEN>() else {
        return;
    };
    let half = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (size, checksum_start, checksum_offset) = (half(4), half(6), half(8));
    match header[1] & 0x7f {
        0 => {
            if header[0] & NEEDS_CHECKSUM != 0 {
                complete(packet, checksum_start, checksum_offset);
            }
            outbox.add(keys, packet, &[]);
        }
        kind @ (GSO_TCPV4 | GSO_UDP) if packet.first() == Some(&0x45) => {
            let upper_len = match kind {
                GSO_TCPV4 => usize::from(packet[IP_LEN + 12] >> 4) * 4,
                _ => 8,
            };
            let (headers, payload) = packet.split_at(IP_LEN + upper_len);
            let mut copied = [0; HEADERS_MAX];
            let copied = &mut copied[..headers.len()];
            copied.copy_from_slice(headers);
            segments(
                copied,
                payload,
                size,
                kind == GSO_TCPV4,
                |headers, payload| {
                    outbox.add(keys, headers, payload);
                },
            );
        }
        _ => {}
    }
}

fn complete(packet: &mut [u8], start: usize, offset: usize) {
    let checksum = Sum::default().add(&packet[start..]).finish();
    packet[start + offset..][..2].copy_from_slice(&checksum);
}

/// Hands out each segment with headers of its own.
#[inline]
fn segments(
    headers: &mut [u8],
    payload: &[u8],
    size: usize,
    is_tcp: bool,
    mut handle: impl FnMut(&[u8], &[u8]),
) {
    let (first_id, first_sequence) = (half(headers, 4), word(headers, IP_LEN + 4));
    let flags = if is_tcp { headers[IP_LEN + 13] } else { 0 };
    let count = payload.len().div_ceil(size);
    for (number, piece) in payload.chunks(size).enumerate() {
        let length = headers.len() + piece.len();
        let (ip, upper) = headers.split_at_mut(IP_LEN);
        ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&first_id.wrapping_add(number as u16).to_be_bytes());
        write_ip(ip);
        let field = if is_tcp {
            let sequence = first_sequence.wrapping_add((number * size) as u32);
            upper[4..8].copy_from_slice(&sequence.to_be_bytes());
            let kept_by_last = if number + 1 < count { FIN_AND_PSH } else { 0 };
            let kept_by_first = if number > 0 { CWR } else { 0 };
            upper[13] = flags & !kept_by_last & !kept_by_first;
            16..18
        } else {
            upper[4..6].copy_from_slice(&((length - IP_LEN) as u16).to_be_bytes());
            6..8
        };
        upper[field.clone()].fill(0);
        let checksum = Sum::default()
            .add_pseudo_header(ip, length - IP_LEN)
            .add(upper)
            .add(piece)
            .finish();
        upper[field].copy_from_slice(&checksum);
        handle(headers, piece);
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_right_lengths_sequences_and_checksums() {
        let mut headers = [0; 40];
        headers[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6]);
        headers[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        headers[32] = 5 << 4;
        headers[33] = 0x18 | CWR;
        let payload: Vec<u8> = (0..250).map(|at| at as u8).collect();
        let mut seen = Vec::new();
        segments(&mut headers, &payload, 100, true, |headers, piece| {
            let (ip, upper) = headers.split_at(IP_LEN);
            assert_eq!(Sum::default().add(ip).finish(), [0, 0]);
            let sum = Sum::default().add_pseudo_header(ip, upper.len() + piece.len());
            assert_eq!(sum.add(upper).add(piece).finish(), [0, 0]);
            assert_eq!(usize::from(half(ip, 2)), headers.len() + piece.len());
            seen.push((word(upper, 4), half(ip, 4), upper[13], piece.len()));
        });
        assert_eq!(
            seen,
            [
                (0, 9, 0x10 | CWR, 100),
                (100, 10, 0x10, 100),
                (200, 11, 0x18, 50)
            ]
        );
    }
}
