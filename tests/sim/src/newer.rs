//! Messages as a later version would write them: with fields that this one does not know, and must
//! pass over. What is signed, and policy, which a host must understand whole, are left alone.

use crate::dice::Dice;

/// Numbers that no message of ours uses.
const FIRST_UNKNOWN_FIELD: u64 = 1900;

/// Adds up to three unknown fields to an encoded protobuf message.
pub(crate) fn say_more(message: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.below(3) {
        let number = FIRST_UNKNOWN_FIELD + dice.below(100) as u64;
        // Protobuf encoding: the field's number and its wire type, then the value.
        match dice.below(4) {
            0 => {
                varint(number << 3, message);
                varint(dice.below(1 << 40) as u64, message);
            }
            1 => {
                varint(number << 3 | 1, message);
                message.extend_from_slice(&[0xa5; 8]);
            }
            2 => {
                let length = dice.below(40);
                varint(number << 3 | 2, message);
                varint(length as u64, message);
                message.extend(std::iter::repeat_n(0x5a, length));
            }
            _ => {
                varint(number << 3 | 5, message);
                message.extend_from_slice(&[0xa5; 4]);
            }
        }
    }
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::control::FromHost;
    use model::wire;

    #[test]
    fn a_message_that_says_more_means_the_same() {
        let mut dice = Dice::new(1, "");
        let message = FromHost::Ping(7);
        let plain = wire::encode_from_host(&message);
        for _ in 0..100 {
            let mut bytes = plain.clone();
            say_more(&mut bytes, &mut dice);
            assert!(bytes.len() > plain.len());
            assert_eq!(wire::decode_from_host(&bytes), Ok(message.clone()));
        }
    }
}
