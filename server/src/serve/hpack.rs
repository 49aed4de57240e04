//! As much of HPACK (RFC 7541) as it takes to find a literal `:authority` in a header block.

use std::ops::Range;

/// A literal value of `:authority` in a block.
#[derive(PartialEq, Eq, Debug)]
pub struct Authority {
    /// The value's string literal, its length prefix included.
    pub value: Range<usize>,
    /// Its length once decoded.
    pub chars: usize,
}

/// The static table's index of `:authority`.
const AUTHORITY_INDEX: usize = 1;
/// Pseudo-header fields come first, and there are five.
const PSEUDO_FIELDS_MAX: usize = 5;
const HUFFMAN: u8 = 0x80;

/// `None`: no literal authority among the first fields, or a block that does not parse.
pub fn find_authority(block: &[u8]) -> Option<Authority> {
    let mut at = 0;
    let mut fields = 0;
    while fields < PSEUDO_FIELDS_MAX {
        let first = *block.get(at)?;
        if first & 0x80 != 0 {
            // An indexed field: name and value are in a table.
            at = integer(block, at, 7)?.1;
            fields += 1;
            continue;
        }
        if first & 0xe0 == 0x20 {
            // A new size of the dynamic table.
            at = integer(block, at, 5)?.1;
            continue;
        }
        // A literal field, with indexing (6 bits of name index) or without (4).
        let (name, mut next) = integer(block, at, if first & 0x40 != 0 { 6 } else { 4 })?;
        if name == 0 {
            next = string(block, next)?.end;
        }
        let value = string(block, next)?;
        if name == AUTHORITY_INDEX {
            let (_, start) = integer(block, value.start, 7)?;
            let text = &block[start..value.end];
            let is_huffman = block[value.start] & HUFFMAN != 0;
            let chars = if is_huffman { huffman_chars(text)? } else { text.len() };
            return Some(Authority { value, chars });
        }
        at = value.end;
        fields += 1;
    }
    None
}

/// An integer with a prefix of `bits` (§5.1), and where it ends.
fn integer(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let prefix_max = (1usize << bits) - 1;
    let prefix = usize::from(*block.get(at)?) & prefix_max;
    if prefix < prefix_max {
        return Some((prefix, at + 1));
    }
    let mut value = prefix;
    // Three further bytes reach past the longest frame.
    for (n, byte) in block.get(at + 1..)?.iter().take(3).enumerate() {
        value += usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, at + 2 + n));
        }
    }
    None
}

/// A string literal (§5.2), its length prefix included.
fn string(block: &[u8], at: usize) -> Option<Range<usize>> {
    let (len, start) = integer(block, at, 7)?;
    let end = start.checked_add(len)?;
    (end <= block.len()).then_some(at..end)
}

/// Appends a string literal without Huffman coding.
pub fn put_plain_string(text: &[u8], out: &mut Vec<u8>) {
    const PREFIX_MAX: usize = 0x7f;
    if text.len() < PREFIX_MAX {
        out.push(text.len() as u8);
    } else {
        out.push(PREFIX_MAX as u8);
        let mut rest = text.len() - PREFIX_MAX;
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text);
}

/// How many codes of the Huffman code (appendix B) have a length. The code is canonical, so this is
/// enough to tell where each one ends. The last one, of 30 bits, ends no string and is left out.
const CODES_BY_BITS: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 3),
];

/// Number of characters of a Huffman-coded string. `None`: padding that is none.
fn huffman_chars(text: &[u8]) -> Option<usize> {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |n| u32::from(byte >> n & 1)));
    let mut chars = 0;
    loop {
        // `code` is what has been read; `first` the smallest code of its length.
        let (mut code, mut first, mut len) = (0u32, 0u32, 0u32);
        let ended = 'one: {
            for (code_bits, count) in CODES_BY_BITS {
                while len < code_bits {
                    let Some(bit) = bits.next() else { break 'one true };
                    code = code << 1 | bit;
                    first <<= 1;
                    len += 1;
                }
                if code - first < count {
                    break 'one false;
                }
                first += count;
            }
            return None;
        };
        if !ended {
            chars += 1;
            continue;
        }
        // At most seven bits of padding, all ones.
        return (len < 8 && code == (1 << len) - 1).then_some(chars);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        // Kraft's equality: every bit string is the prefix of a code or has one as its prefix.
        let sum: u64 =
            CODES_BY_BITS.iter().map(|(bits, count)| u64::from(*count) << (30 - bits)).sum();
        assert_eq!(sum + 1, 1 << 30, "all but the code that ends no string");
        assert_eq!(CODES_BY_BITS.iter().map(|(_, count)| count).sum::<u32>(), 256);
    }

    /// The requests of RFC 7541, appendix C.3.1 and C.4.1.
    #[test]
    fn an_authority_is_found_plain_and_huffman_coded() {
        let plain = [&[0x82, 0x86, 0x84, 0x41, 0x0f][..], b"www.example.com"].concat();
        assert_eq!(find_authority(&plain), Some(Authority { value: 4..20, chars: 15 }));
        let huffman = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
            0x90, 0xf4, 0xff,
        ];
        assert_eq!(find_authority(&huffman), Some(Authority { value: 4..17, chars: 15 }));
        // C.3.2: the authority comes from the dynamic table.
        let indexed = [&[0x82, 0x86, 0x84, 0xbe, 0x58, 0x08][..], b"no-cache"].concat();
        assert_eq!(find_authority(&indexed), None);
    }

    /// Appendix C.6.1: codes of five to eight bits, and of thirteen in none of them.
    #[test]
    fn huffman_coded_texts_are_counted() {
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(huffman_chars(&date), Some("Mon, 21 Oct 2013 20:13:21 GMT".len()));
        assert_eq!(huffman_chars(&[]), Some(0));
        assert_eq!(huffman_chars(&[0xff; 4]), None, "the end-of-string code");
        assert_eq!(huffman_chars(&[0x00]), None, "padding of zeros");
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 1u64;
        for _ in 0..200_000 {
            let mut block = [0; 24];
            for byte in &mut block {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            block[0] |= 0x40;
            if let Some(authority) = find_authority(&block) {
                assert!(authority.value.end <= block.len());
            }
        }
    }

    #[test]
    fn long_strings_have_long_prefixes() {
        for len in [0, 126, 127, 128, 254, 255, 5000] {
            let mut out = vec![0x41];
            put_plain_string(&vec![b'x'; len], &mut out);
            let value = 1..out.len();
            assert_eq!(find_authority(&out), Some(Authority { value, chars: len }));
        }
    }
}
