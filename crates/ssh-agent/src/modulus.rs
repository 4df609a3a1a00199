//! Remainders of large numbers, for the two exponents that OpenSSH's RSA keys leave out.

/// `value mod (modulus - 1)`, big-endian; `modulus` is odd and not 1, as a prime of a key is.
pub(crate) fn remainder_below(value: &[u8], modulus: &[u8]) -> Option<Vec<u8>> {
    let mut divisor = modulus.to_vec();
    // Odd: one less is the last bit gone.
    let last = divisor.last_mut().filter(|last| **last & 1 == 1)?;
    *last &= !1;
    let mut remainder = vec![0u8; divisor.len() + 1];
    divisor.insert(0, 0);
    if divisor.iter().all(|byte| *byte == 0) {
        return None;
    }
    for byte in value {
        for bit in (0..8).rev() {
            shift_in(&mut remainder, byte >> bit & 1);
            if remainder >= divisor {
                subtract(&mut remainder, &divisor);
            }
        }
    }
    let zeros = remainder.iter().take_while(|byte| **byte == 0).count();
    Some(remainder.split_off(zeros))
}

fn shift_in(number: &mut [u8], mut bit: u8) {
    for byte in number.iter_mut().rev() {
        (*byte, bit) = (*byte << 1 | bit, *byte >> 7);
    }
}

/// Of the same length, and not larger.
fn subtract(from: &mut [u8], what: &[u8]) {
    let mut borrow = false;
    for (a, b) in from.iter_mut().zip(what).rev() {
        let (difference, first) = a.overflowing_sub(*b);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        (*a, borrow) = (difference, first || second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_small_numbers() {
        let bytes = |number: u64| {
            let bytes = number.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        for value in [0, 1, 2, 255, 256, 65_535, 0x1234_5678_9abc_def0, u64::MAX] {
            for modulus in [3, 5, 257, 65_537, 0x1_0000_0001, u64::MAX] {
                let expect = bytes(value % (modulus - 1));
                assert_eq!(
                    remainder_below(&bytes(value), &bytes(modulus)),
                    Some(expect),
                    "{value} {modulus}"
                );
            }
        }
        assert_eq!(remainder_below(&[1], &[4]), None);
        assert_eq!(remainder_below(&[1], &[1]), None);
        assert_eq!(remainder_below(&[1], &[]), None);
    }
}
