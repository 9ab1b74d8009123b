//! The secrets of API keys: a prefix by which scanners and people recognise one, 43 characters of randomness, and a
//! checksum, so that a scanner needs to ask nobody whether it has found one, and a mistyped one costs no query.

use rand::RngExt as _;
use secrecy::SecretString;

/// What every secret begins with.
pub const PREFIX: &str = "osk_";

/// Digits and letters, in the order of their values.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random characters: 43 of 62 are 256 bits.
const RANDOM_LEN: usize = 43;
/// Characters of the checksum: a CRC-32 in base 62.
const CHECKSUM_LEN: usize = 6;
/// Characters of a secret that are kept in clear, for people to tell keys apart.
const SHOWN_LEN: usize = PREFIX.len() + 6;

/// Makes one.
#[must_use]
pub fn generate() -> SecretString {
    let mut rng = rand::rng();
    let random: String = (0..RANDOM_LEN)
        .map(|_| char::from(BASE62[rng.random_range(0..BASE62.len())]))
        .collect();
    let body = format!("{PREFIX}{random}");
    let checksum = checksum(&body);
    SecretString::from(body + &checksum)
}

/// Whether a text has the form of a secret, checksum included.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    let fine = text.len() == PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN
        && text.starts_with(PREFIX)
        && text[PREFIX.len()..]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric());
    fine && {
        let (body, sum) = text.split_at(PREFIX.len() + RANDOM_LEN);
        checksum(body) == sum
    }
}

/// The beginning of a secret.
#[must_use]
pub fn shown(secret: &str) -> String {
    secret.chars().take(SHOWN_LEN).collect()
}

/// The CRC-32 (ISO 3309) of a text, in six digits of base 62.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_secret_is_well_formed_and_no_other_is_like_it() {
        let (one, two) = (generate(), generate());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert!(is_well_formed(one.expose_secret()));
        assert!(one.expose_secret().starts_with(&shown(one.expose_secret())));
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(place in 4_usize..53, digit in 0_usize..62) {
            let secret = generate();
            let mut bytes = secret.expose_secret().as_bytes().to_vec();
            prop_assume!(bytes[place] != BASE62[digit]);
            bytes[place] = BASE62[digit];
            prop_assert!(!is_well_formed(&String::from_utf8(bytes).unwrap()));
        }

        #[test]
        fn no_text_makes_the_check_panic(text in ".{0,80}") {
            prop_assert!(!is_well_formed(&text));
            let prefixed = format!("osk_{text}");
            prop_assert!(!is_well_formed(&prefixed));
        }
    }
}
