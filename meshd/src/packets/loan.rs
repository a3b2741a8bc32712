//! Memory of received datagrams, in which packets stay until the kernel has taken them: where it lies,
//! so that a packet tells whether it is in there.

/// What is lent; by default, nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loan {
    address: usize,
    bytes: usize,
}

impl Loan {
    pub(super) fn of(memory: &[u8]) -> Self {
        Self {
            address: memory.as_ptr().addr(),
            bytes: memory.len(),
        }
    }

    /// Returns where in the memory a packet starts; `None`: it is not in there.
    pub(super) fn place_of(&self, packet: &[u8]) -> Option<usize> {
        let start = packet.as_ptr().addr().checked_sub(self.address)?;
        let end = start.checked_add(packet.len())?;
        (end <= self.bytes).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_whether_it_lies_in_the_memory() {
        let all = [0; 100];
        let (before, rest) = all.split_at(20);
        let (memory, after) = rest.split_at(60);
        let loan = Loan::of(memory);
        assert_eq!(loan.place_of(&memory[..9]), Some(0));
        assert_eq!(loan.place_of(&memory[50..]), Some(50));
        for outside in [before, after, &all[15..30], &all[70..90], &all[..]] {
            assert_eq!(loan.place_of(outside), None);
        }
        assert_eq!(Loan::default().place_of(memory), None);
    }
}
