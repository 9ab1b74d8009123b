//! The ids of the API (https://github.com/jetify-com/typeid), for rows that a test writes itself.

use anyhow::{Context as _, Result};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The id of a row as the API writes it.
#[must_use]
pub fn id_of(prefix: &str, row: Uuid) -> String {
    let bits = row.as_u128();
    let digits = (0..26_u32).rev().map(|digit| {
        let index = (bits >> (digit * 5)) & 31;
        char::from(ALPHABET[usize::try_from(index).expect("five bits")])
    });
    format!("{prefix}_{}", digits.collect::<String>())
}

/// The row of an id.
///
/// # Errors
/// It is none.
pub fn row_of(id: &str) -> Result<Uuid> {
    let (_, digits) = id.rsplit_once('_').context("an id has a prefix")?;
    let mut bits = 0_u128;
    for byte in digits.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == byte);
        bits = (bits << 5) | u128::try_from(digit.with_context(|| format!("no id: {id}"))?)?;
    }
    Ok(Uuid::from_u128(bits))
}
