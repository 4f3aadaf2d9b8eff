//! The kernel's `jhash` (`include/linux/jhash.h`; Bob Jenkins' lookup3), as nf_tables uses it.
//!
//! Its seed is fixed, so that every node picks the same slot for the same connection.

/// Start value of every hash in the rule set.
pub const SEED: u32 = 0x0c0f_7e17;

/// The hash of whole words, as registers hold them.
pub(super) fn jhash(words: &[u32], seed: u32) -> u32 {
    let length = (words.len() * 4) as u32;
    let start = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let mut s = [start; 3];
    let mut rest = words;
    while let [a, b, c, more @ ..] = rest {
        // The last one to three words are finished, not mixed.
        if more.is_empty() {
            break;
        }
        for (state, word) in s.iter_mut().zip([a, b, c]) {
            *state = state.wrapping_add(*word);
        }
        mix(&mut s);
        rest = more;
    }
    if rest.is_empty() {
        return s[2];
    }
    for (state, word) in s.iter_mut().zip(rest) {
        *state = state.wrapping_add(*word);
    }
    finish(&mut s);
    s[2]
}

/// `reciprocal_scale`: spreads a hash over 0..n.
pub(super) fn scale(hash: u32, n: u32) -> u32 {
    ((u64::from(hash) * u64::from(n)) >> 32) as u32
}

fn mix([a, b, c]: &mut [u32; 3]) {
    *a = a.wrapping_sub(*c) ^ c.rotate_left(4);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(6);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(8);
    *b = b.wrapping_add(*a);
    *a = a.wrapping_sub(*c) ^ c.rotate_left(16);
    *c = c.wrapping_add(*b);
    *b = b.wrapping_sub(*a) ^ a.rotate_left(19);
    *a = a.wrapping_add(*c);
    *c = c.wrapping_sub(*b) ^ b.rotate_left(4);
    *b = b.wrapping_add(*a);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(14));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(11));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(25));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(16));
    *a = (*a ^ *c).wrapping_sub(c.rotate_left(4));
    *b = (*b ^ *a).wrapping_sub(a.rotate_left(14));
    *c = (*c ^ *b).wrapping_sub(b.rotate_left(24));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// lookup3.c's own vectors: hashlittle of "Four score and seven years ago" is 30 bytes and
    /// needs the byte tail, which word keys never take; of its vectors the empty key remains.
    #[test]
    fn the_empty_key() {
        assert_eq!(jhash(&[], 0), 0xdead_beef);
        assert_eq!(jhash(&[], 0xdead_beef), 0xbd5b_7dde);
    }

    #[test]
    fn scaling_covers_the_range() {
        assert_eq!(scale(0, 7), 0);
        assert_eq!(scale(u32::MAX, 7), 6);
    }

    #[test]
    fn tuples_spread_evenly() {
        let mut counts = [0u32; 8];
        for port in 0..8000u32 {
            let words = [0x0100_000a, 0x6400_000a, 6, (port << 16 | 80).to_be()];
            counts[scale(jhash(&words, SEED), 8) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }
}
