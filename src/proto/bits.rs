//! Elements narrower than a byte: 2-bit and 4-bit integers, 4-bit and 6-bit floats.
//!
//! ONNX packs them as one bit stream, the first element in the lowest bits (`TensorProto.raw_data`, onnx.proto3); the
//! last byte is padded with zero bits. Invariant: `unpack(pack(values))` gives the values back, masked to their width.

/// One byte per element (its bits in the low end) out of a packed stream. Bits beyond the end of the stream read as
/// zero.
pub(crate) fn unpack(packed: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let available = packed.len().saturating_mul(8).checked_div(bits).unwrap_or(0);
    let mask = mask(bits);
    let byte = |index: usize| u16::from(packed.get(index).copied().unwrap_or(0));
    (0..count.min(available))
        .map(|index| {
            let first = index * bits;
            let pair = byte(first / 8) | (byte(first / 8 + 1) << 8);
            ((pair >> (first % 8)) as u8) & mask
        })
        .collect()
}

/// The packed stream of elements that lie in the low bits of one byte each.
pub(crate) fn pack(values: &[u8], bits: usize) -> Vec<u8> {
    let mask = mask(bits);
    let mut packed = Vec::with_capacity((values.len() * bits).div_ceil(8));
    let (mut pending, mut filled) = (0u16, 0);
    for value in values {
        pending |= u16::from(value & mask) << filled;
        filled += bits;
        if filled >= 8 {
            packed.push(pending as u8);
            pending >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        packed.push(pending as u8);
    }
    packed
}

fn mask(bits: usize) -> u8 {
    if bits >= 8 { u8::MAX } else { (1u8 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_low_bits_first_as_the_standard_says() {
        assert_eq!(pack(&[0x1, 0x2, 0xf], 4), [0x21, 0x0f]);
        assert_eq!(pack(&[1, 2, 3, 0, 2], 2), [0b00_11_10_01, 0b10]);
        let (x0, x1, x2, x3) = (0x2a, 0x15, 0x3f, 0x01);
        let expected = [x0 | ((x1 & 0x3) << 6), (x1 >> 2) | ((x2 & 0xf) << 4), (x2 >> 4) | (x3 << 2)];
        assert_eq!(pack(&[x0, x1, x2, x3], 6), expected);
    }

    #[test]
    fn unpacking_undoes_packing_at_every_length() {
        for bits in [2, 4, 6] {
            for count in 0..20u8 {
                let values: Vec<u8> = (0..count).map(|value| value.wrapping_mul(37) & mask(bits)).collect();
                assert_eq!(unpack(&pack(&values, bits), bits, values.len()), values, "{bits} bits, {count} values");
            }
        }
    }
}
