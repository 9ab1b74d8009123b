//! Passwords of Odoo users as Odoo stores them: passlib's `pbkdf2_sha512`,
//! `$pbkdf2-sha512$<rounds>$<salt>$<checksum>`, both in base64 without padding and with `.` for `+`.

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

/// Rounds that Odoo 19 asks for: it hashes anew at the next sign-in whatever has fewer.
const ODOO_ROUNDS: u32 = 600_000;

/// Rounds for a password of full entropy, where guessing is hopeless whatever a guess costs.
const GENERATED_ROUNDS: u32 = 1_000;

/// Letters of a generated password: 26 characters of 5 bits, none that is mistaken for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

const GENERATED_LENGTH: usize = 26;

/// A text that is not a generated password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a generated password")]
pub struct NotGenerated;

/// A password that the platform made: 130 random bits.
#[derive(Debug, Clone)]
pub struct GeneratedPassword(SecretString);

impl GeneratedPassword {
    /// A new password from the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        let bytes = Zeroizing::new(rand::random::<[u8; GENERATED_LENGTH]>());
        let text: Zeroizing<String> = Zeroizing::new(
            bytes
                .iter()
                .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
                .collect(),
        );
        Self(SecretString::from(text.as_str()))
    }

    /// Takes back a password that [`GeneratedPassword::generate`] made and someone has kept.
    ///
    /// # Errors
    /// [`NotGenerated`] when it does not have the form of one. The form is no proof: never pass what a person
    /// chose.
    pub fn reopen(text: SecretString) -> Result<Self, NotGenerated> {
        let ours = text.expose_secret().len() == GENERATED_LENGTH
            && text.expose_secret().bytes().all(|byte| ALPHABET.contains(&byte));
        if ours { Ok(Self(text)) } else { Err(NotGenerated) }
    }

    /// The password, to be shown once.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }
}

/// The stored form of a password; safe to write into a tenant's database, and nowhere else.
#[derive(Debug, Clone)]
pub struct PasswordHash(SecretString);

impl PasswordHash {
    /// The hash of a password that a person chose, with Odoo's own 600,000 rounds: about 0.3 s of a processor, on
    /// a thread of its own.
    pub async fn of_chosen(password: SecretString) -> Self {
        on_a_thread(password, ODOO_ROUNDS).await
    }

    /// The hash of a generated password: 1,000 rounds, under a millisecond. Rounds make guessing dear, and nobody
    /// guesses 130 bits; Odoo raises them by itself at the first sign-in.
    #[must_use]
    pub fn of_generated(password: &GeneratedPassword) -> Self {
        Self(hash(password.secret(), rand::random(), GENERATED_ROUNDS))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

async fn on_a_thread(password: SecretString, rounds: u32) -> PasswordHash {
    let hashed = tokio::task::spawn_blocking(move || hash(&password, rand::random(), rounds)).await;
    PasswordHash(hashed.expect("hashing neither panics nor is cancelled"))
}

fn hash(password: &SecretString, salt: [u8; 16], rounds: u32) -> SecretString {
    let mut checksum = Zeroizing::new([0_u8; 64]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA512,
        rounds.try_into().expect("rounds are not zero"),
        &salt,
        password.expose_secret().as_bytes(),
        checksum.as_mut_slice(),
    );
    format!(
        "$pbkdf2-sha512${rounds}${}${}",
        passlib_base64(&salt),
        passlib_base64(checksum.as_slice())
    )
    .into()
}

fn passlib_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes).replace('+', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_passlibs_own() {
        // passlib 1.7.4: pbkdf2_sha512.using(rounds=…, salt=…).hash(…)
        let few = hash(
            &"correct horse".into(),
            std::array::from_fn(|index| u8::try_from(index).unwrap()),
            1_000,
        );
        assert_eq!(
            few.expose_secret(),
            "$pbkdf2-sha512$1000$AAECAwQFBgcICQoLDA0ODw$Xpx07WjVx4vCIvrmBRj8uOoVVtGqJqtUv2J5bhizSQs7osCteF7W4A61dZDqSIqQjO.dxO6p5FT/Uy7QRBXSXA"
        );
        let salt = [0xff, 0xfe, 0xfb, 0xef].repeat(4).try_into().unwrap();
        let many = hash(&"пароль ü".into(), salt, ODOO_ROUNDS);
        assert_eq!(
            many.expose_secret(),
            "$pbkdf2-sha512$600000$//777//...///vvv//777w$CNvlDJnPdkos3xcd9V475pPWYW0u4m5U6NsTZ2CcXsppuv4kbC9xlFgUBER/j6DZqVxbZnJ4GPs2epenFA2jXg"
        );
    }

    #[tokio::test]
    async fn chosen_passwords_get_odoos_rounds_and_generated_ones_few() {
        let chosen = PasswordHash::of_chosen("hunter2".into()).await;
        assert!(chosen.expose().starts_with("$pbkdf2-sha512$600000$"));
        let generated = GeneratedPassword::generate();
        assert!(
            PasswordHash::of_generated(&generated)
                .expose()
                .starts_with("$pbkdf2-sha512$1000$")
        );
        assert!(!format!("{chosen:?} {generated:?}").contains("pbkdf2"));
    }

    #[test]
    fn only_what_was_generated_is_taken_back() {
        let password = GeneratedPassword::generate();
        let again = GeneratedPassword::reopen(password.secret().expose_secret().into()).unwrap();
        assert_eq!(again.secret().expose_secret(), password.secret().expose_secret());
        for chosen in [
            "hunter2",
            "",
            "correct-horse-battery-stap",
            "ABCDEFGHJKMNPQRSTVWXYZ2345",
        ] {
            assert!(GeneratedPassword::reopen(chosen.into()).is_err(), "{chosen}");
        }
    }
}
