//! The key-encryption provider of an installation without a key management service: master keys from the settings. The
//! newest wraps; the previous one still unwraps, so that the master key can be replaced while everything runs.

use async_trait::async_trait;
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

use super::{
    provider::{EncryptionContext, KeyEncryption, KeyError, Wrapped},
    sealed::{KEY_LEN, decrypt, encrypt},
};
use crate::{error::Error, settings::SharedSettings};

/// One master key. Never used as it is: each purpose has a key derived from it.
#[derive(Debug, Clone)]
struct MasterKey {
    key: SecretSlice<u8>,
    id: String,
}

impl MasterKey {
    fn new(key: SecretSlice<u8>) -> Self {
        let name = derive(&key, "key-id");
        let digits: String = name[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            key,
            id: format!("local:{digits}"),
        }
    }

    fn from_base64(text: &SecretString) -> Result<Self, Error> {
        base64::engine::general_purpose::STANDARD
            .decode(text.expose_secret().trim())
            .ok()
            .filter(|bytes| bytes.len() == KEY_LEN)
            .map(|bytes| Self::new(bytes.into()))
            .ok_or_else(|| Error::internal("the master key is not 32 bytes in base64"))
    }
}

/// A key of 32 bytes for one purpose.
pub(super) fn derive(from: &SecretSlice<u8>, purpose: &str) -> [u8; KEY_LEN] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(from.expose_secret()).expect("HMAC takes keys of every length");
    mac.update(b"odoo-saas-platform/");
    mac.update(purpose.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The installation's master keys.
#[derive(Debug, Clone)]
pub struct MasterKeys {
    newest: MasterKey,
    previous: Option<MasterKey>,
}

impl MasterKeys {
    /// Takes the base64 forms that settings have checked.
    ///
    /// # Errors
    /// A text is not 32 bytes in base64.
    pub fn from_base64(newest: &SecretString, previous: Option<&SecretString>) -> Result<Self, Error> {
        Ok(Self {
            newest: MasterKey::from_base64(newest)?,
            previous: previous.map(MasterKey::from_base64).transpose()?,
        })
    }

    /// Those of the settings.
    ///
    /// # Errors
    /// As for [`Self::from_base64`].
    pub fn of(settings: &SharedSettings) -> Result<Self, Error> {
        Self::from_base64(&settings.master_key, settings.master_key_previous.as_ref())
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.newest).chain(&self.previous)
    }

    /// Opens what was sealed before there were data keys: a nonce and a ciphertext under a key derived from the master
    /// key itself.
    pub(super) fn open_old_form(&self, belongs_to: &str, sealed: &[u8]) -> Option<SecretSlice<u8>> {
        self.all()
            .find_map(|master| decrypt(&derive(&master.key, "seal"), belongs_to.as_bytes(), sealed))
    }
}

#[async_trait]
impl KeyEncryption for MasterKeys {
    fn key_id(&self) -> &str {
        &self.newest.id
    }

    async fn wrap(
        &self,
        data_key: &SecretSlice<u8>,
        context: &EncryptionContext,
    ) -> Result<Wrapped, KeyError> {
        let key = derive(&self.newest.key, "wrap-data-key");
        Ok(Wrapped {
            key_id: self.newest.id.clone(),
            bytes: encrypt(&key, &authenticated(context), data_key.expose_secret()),
        })
    }

    async fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &EncryptionContext,
    ) -> Result<SecretSlice<u8>, KeyError> {
        let Some(master) = self.all().find(|master| master.id == wrapped.key_id) else {
            let given: Vec<&str> = self.all().map(|master| master.id.as_str()).collect();
            return Err(KeyError::Refused(format!(
                "MASTER_KEY: a data key is wrapped by the master key {}, but the settings give {}; give that one as \
                 MASTER_KEY, or as MASTER_KEY_PREVIOUS",
                wrapped.key_id,
                given.join(" and ")
            )));
        };
        let key = derive(&master.key, "wrap-data-key");
        decrypt(&key, &authenticated(context), &wrapped.bytes)
            .filter(|opened| opened.expose_secret().len() == KEY_LEN)
            .ok_or_else(|| {
                KeyError::Refused(format!(
                    "data_keys: a data key that the master key {} has wrapped was changed, and does not open",
                    master.id
                ))
            })
    }
}

/// One spelling of a context: each name and value after its length.
fn authenticated(context: &EncryptionContext) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in context.iter().flat_map(|(name, value)| [*name, value.as_str()]) {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn text(byte: u8) -> SecretString {
        base64::engine::general_purpose::STANDARD
            .encode([byte; KEY_LEN])
            .into()
    }

    pub(crate) fn keys(newest: u8, previous: Option<u8>) -> MasterKeys {
        MasterKeys::from_base64(&text(newest), previous.map(text).as_ref()).unwrap()
    }

    fn context(id: &str) -> EncryptionContext {
        EncryptionContext::from([("data_key", id.to_owned())])
    }

    #[tokio::test]
    async fn a_wrapped_key_opens_with_the_newest_and_the_previous_master_key_only() {
        let data_key: SecretSlice<u8> = vec![7; KEY_LEN].into();
        let wrapped = keys(1, None).wrap(&data_key, &context("a")).await.unwrap();
        assert_eq!(wrapped.key_id, keys(1, None).key_id());
        for ring in [keys(1, None), keys(2, Some(1))] {
            let opened = ring.unwrap(&wrapped, &context("a")).await.unwrap();
            assert_eq!(opened.expose_secret(), data_key.expose_secret());
            assert!(ring.unwrap(&wrapped, &context("b")).await.is_err());
        }
        let refusal = keys(2, Some(3))
            .unwrap(&wrapped, &context("a"))
            .await
            .unwrap_err();
        let text = refusal.to_string();
        assert!(
            text.contains("MASTER_KEY_PREVIOUS") && text.contains(&wrapped.key_id),
            "{text}"
        );
        let mut changed = wrapped;
        changed.bytes[20] ^= 1;
        assert!(keys(1, None).unwrap(&changed, &context("a")).await.is_err());
    }

    #[test]
    fn a_key_id_tells_nothing_of_the_key() {
        let ring = keys(1, None);
        assert!(!text(1).expose_secret().contains(&ring.key_id()[6..]));
        assert_ne!(ring.key_id(), keys(2, None).key_id());
    }

    #[test]
    fn what_was_sealed_before_there_were_data_keys_opens() {
        let old = encrypt(&derive(&vec![1; KEY_LEN].into(), "seal"), b"op_1", b"secret");
        for ring in [keys(1, None), keys(2, Some(1))] {
            assert_eq!(
                ring.open_old_form("op_1", &old).unwrap().expose_secret(),
                b"secret"
            );
            assert!(ring.open_old_form("op_2", &old).is_none());
        }
        assert!(keys(2, None).open_old_form("op_1", &old).is_none());
    }

    #[test]
    fn purposes_have_different_keys() {
        let from = vec![1; KEY_LEN].into();
        assert_ne!(derive(&from, "seal"), derive(&from, "page-token"));
    }
}
