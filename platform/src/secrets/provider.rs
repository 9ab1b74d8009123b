//! What wraps data keys: a key-encryption provider. The master key of a local file is one; a key management service is
//! another. A provider sees data keys only, never what these seal.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use secrecy::SecretSlice;

use crate::error::Error;

/// Longest wait for a provider's answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a wrapped key belongs to, by name. It is bound to the wrapped key and opens it only as a whole; a provider that
/// keeps records of its use may show it, so that it must hold no secret.
pub type EncryptionContext = BTreeMap<&'static str, String>;

/// Why a provider did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It doesn't answer, or not now: asking again may help.
    #[error("the key-encryption provider does not answer: {0}")]
    Unavailable(String),
    /// It answered, and won't: another key, another context, no right to, or damaged bytes.
    #[error("the key-encryption provider refuses: {0}")]
    Refused(String),
}

/// A data key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The provider's key that wraps it.
    pub key_id: String,
    /// What only the provider can open.
    pub bytes: Vec<u8>,
}

/// Wraps and unwraps data keys. Whoever asks sets the deadline, so that no provider can forget it.
#[async_trait]
pub trait KeyEncryption: std::fmt::Debug + Send + Sync {
    /// The name of the key that wraps from now on. Never the key itself, and nothing that tells of it.
    fn key_id(&self) -> &str;

    /// Wraps a data key under the key that [`Self::key_id`] names.
    async fn wrap(
        &self,
        data_key: &SecretSlice<u8>,
        context: &EncryptionContext,
    ) -> Result<Wrapped, KeyError>;

    /// Opens a wrapped data key, also one that an earlier key of the provider's has wrapped.
    async fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &EncryptionContext,
    ) -> Result<SecretSlice<u8>, KeyError>;
}

/// Asks a provider to wrap, and waits no longer than ten seconds.
pub(super) async fn wrap(
    provider: &dyn KeyEncryption,
    data_key: &SecretSlice<u8>,
    context: &EncryptionContext,
) -> Result<Wrapped, Error> {
    in_time(provider.wrap(data_key, context)).await
}

/// Asks a provider to unwrap, and waits no longer than ten seconds.
pub(super) async fn unwrap(
    provider: &dyn KeyEncryption,
    wrapped: &Wrapped,
    context: &EncryptionContext,
) -> Result<SecretSlice<u8>, Error> {
    in_time(provider.unwrap(wrapped, context)).await
}

async fn in_time<T>(call: impl Future<Output = Result<T, KeyError>>) -> Result<T, Error> {
    let late = || KeyError::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()));
    let answer = tokio::time::timeout(DEADLINE, call).await;
    match answer.unwrap_or_else(|_| Err(late())) {
        Ok(answer) => Ok(answer),
        Err(away @ KeyError::Unavailable(_)) => Err(Error::Unavailable {
            part: "the key-encryption provider",
            retry_after: Duration::from_secs(5),
            source: away.into(),
        }),
        Err(KeyError::Refused(why)) => Err(Error::Internal(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_provider_that_is_away_is_told_from_one_that_refuses() {
        let away = in_time(async { Err::<(), _>(KeyError::Unavailable("busy".to_owned())) }).await;
        assert!(matches!(away, Err(Error::Unavailable { .. })), "{away:?}");
        let refuses = in_time(async { Err::<(), _>(KeyError::Refused("another key".to_owned())) }).await;
        assert!(matches!(refuses, Err(Error::Internal(why)) if why == "another key"));
    }
}
