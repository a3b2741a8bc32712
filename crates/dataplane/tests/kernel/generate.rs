//! Random things to send: a few flows, mixed, each going on where it was.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{ACK, CWR, ECE, FIN, Form, Look, PSH, Sending, Tcp, URG};

/// The longest payload of one packet, so that it passes with every option.
pub(crate) const PAYLOAD_MAX: u16 = 1200;

/// What differs from one sending to the next. Most of the time nothing does, so that there are runs.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    flow: Flow,
    /// Whether it is of the flow of the one before instead.
    goes_on: bool,
    form: Form,
    bytes: usize,
    flags: u8,
    /// 0: as always; others change one thing each.
    oddity: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    is_v4: bool,
    is_tcp: bool,
    port: u16,
}

/// Returns what a host with these addresses sends one after the other.
pub(crate) fn sendings(
    v4: (IpAddr, IpAddr),
    v6: (IpAddr, IpAddr),
    choices: &[Choice],
) -> Vec<Sending> {
    // By flow: the next sequence number, which comes around soon, and the next identification.
    let mut next = std::collections::BTreeMap::new();
    let mut sendings = Vec::new();
    let Some(mut flow) = choices.first().map(|choice| choice.flow) else {
        return sendings;
    };
    for (number, choice) in choices.iter().enumerate() {
        if !choice.goes_on {
            flow = choice.flow;
        }
        let (sequence, id) = next.entry(flow).or_insert((u32::MAX - 4000, 0xfff0_u16));
        let addresses = if flow.is_v4 { v4 } else { v6 };
        let sending = choice.sending(flow, addresses, *sequence, *id, number);
        *sequence = sequence.wrapping_add(sending.data.len() as u32);
        *id = id.wrapping_add(sending.cut_by_kernel().len() as u16);
        sendings.push(sending);
    }
    sendings
}

impl Choice {
    fn sending(
        &self,
        flow: Flow,
        addresses: (IpAddr, IpAddr),
        sequence: u32,
        id: u16,
        number: usize,
    ) -> Sending {
        let odd = |what: u8| self.oddity == what;
        let pick = |is_odd: bool, value: u32| if is_odd { value } else { 0 };
        let options = match self.oddity {
            1 => vec![1, 1, 8, 10, 0, 0, 0, number as u8, 0, 0, 0, 2],
            2 => Vec::new(),
            _ => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        };
        let tcp = Tcp {
            sequence: sequence.wrapping_add(pick(odd(3), 17)),
            acknowledgement: 5 + pick(odd(4), number as u32),
            flags: self.flags | if odd(5) { URG } else { 0 },
            window: 500 + pick(odd(6), number as u32) as u16,
            urgent: pick(odd(5), 3) as u16,
            options,
        };
        // A kernel fragments no TCP.
        let form = match self.form {
            Form::Fragments(_) if flow.is_tcp => Form::Whole,
            form => form,
        };
        let bytes = match form {
            Form::Whole => self.bytes.min(PAYLOAD_MAX.into()),
            _ => self.bytes,
        };
        let is_fragmented = matches!(form, Form::Fragments(_));
        let look = Look {
            class: if odd(7) { 0xb9 } else { 0x02 },
            flow_label: pick(odd(8), number as u32),
            hops: if odd(9) { 63 } else { 64 },
            id: id.wrapping_add(pick(odd(10), 5) as u16),
            dont_fragment: !is_fragmented && !flow.port.is_multiple_of(2),
            options: pick(odd(11), 2) as usize,
        };
        Sending {
            addresses,
            ports: (flow.port, 80),
            look,
            tcp: flow.is_tcp.then_some(tcp),
            data: (0..bytes).map(|at| (at * 7 + number) as u8).collect(),
            form,
        }
    }
}

prop_compose! {
    /// Returns any choice.
    pub(crate) fn any_choice()(
        flow in (any::<bool>(), any::<bool>(), 1u16..5),
        goes_on in prop_oneof![3 => Just(true), 1 => Just(false)],
        form in any_form(),
        segments in 0usize..12,
        rest in prop_oneof![2 => Just(0usize), 1 => 0usize..64],
        one in prop_oneof![3 => Just(100usize), 1 => Just(0), 1 => 1usize..=1200],
        flags in prop_oneof![
            12 => Just(ACK),
            1 => Just(ACK | PSH),
            1 => Just(ACK | FIN | PSH),
            1 => Just(ACK | CWR),
            1 => Just(ACK | ECE),
            1 => Just(ACK | ECE | CWR | PSH | FIN),
        ],
        oddity in prop_oneof![12 => Just(0u8), 4 => 1u8..12],
    ) -> Choice {
        let bytes = match form {
            // It gives nothing joined that is not more than one.
            Form::Super(size) => usize::from(size) * segments.max(1) + rest.min(size.into()).max(1),
            Form::Fragments(_) => one + 1200,
            _ => one,
        };
        let (is_v4, is_tcp, port) = flow;
        let flow = Flow { is_v4, is_tcp, port };
        Choice { flow, goes_on, form, bytes, flags, oddity }
    }
}

fn any_form() -> impl Strategy<Value = Form> {
    let size = prop_oneof![3 => Just(100u16), 1 => 1u16..=PAYLOAD_MAX];
    prop_oneof![
        6 => size.prop_map(Form::Super),
        3 => Just(Form::Whole),
        3 => Just(Form::ChecksumLeft),
        1 => Just(Form::Damaged),
        1 => (1u16..100).prop_map(|units| Form::Fragments(units + 1)),
    ]
}
