//! RSA keys that a faulty chip made (ROCA, CVE-2017-15361): their private half can be worked out from the public one.
//!
//! The chip made primes of the form `k · M + (65537^a mod M)`, where M is the product of the first primes. So, modulo each
//! of those small primes, the modulus is a power of 65537, which a modulus of another origin is for all of them once in a
//! hundred million at most. No crate that is kept up to date tells it.

/// The generator that the chip used.
const GENERATOR: u32 = 65_537;
/// Primes modulo which not every number is a power of it: the ones that the discoverers' own test uses.
const PRIMES: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

/// Whether a modulus, as big-endian bytes, has the chip's mark.
pub(super) fn is_marked(modulus: &[u8]) -> bool {
    PRIMES.into_iter().all(|prime| {
        let residue = modulus.iter().fold(0, |so_far, byte| (so_far * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * (GENERATOR % prime) % prime));
        powers.take(prime as usize).any(|power| power == residue)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 65537 to this power, big-endian: what such a modulus is modulo M.
    pub(in crate::auth) fn power(exponent: u32) -> Vec<u8> {
        let mut digits = vec![1_u8];
        for _ in 0..exponent {
            let mut carry = 0_u64;
            for digit in &mut digits {
                let product = u64::from(*digit) * u64::from(GENERATOR) + carry;
                *digit = (product & 0xff) as u8;
                carry = product >> 8;
            }
            while carry > 0 {
                digits.push((carry & 0xff) as u8);
                carry >>= 8;
            }
        }
        digits.reverse();
        digits
    }

    #[test]
    fn what_the_chip_would_make_is_marked_and_its_neighbours_are_not() {
        for exponent in [1, 2, 3, 64, 128] {
            let mut number = power(exponent);
            assert!(is_marked(&number), "65537^{exponent}");
            let last = number.len() - 1;
            number[last] = number[last].wrapping_add(2);
            assert!(!is_marked(&number), "65537^{exponent} + 2");
        }
    }

    #[test]
    fn a_key_of_another_origin_is_not_marked() {
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("key");
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        assert!(!is_marked(&modulus));
    }
}
