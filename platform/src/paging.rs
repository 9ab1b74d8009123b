//! Keyset pages. A page token says after which row the next page begins; it is bound by an HMAC to the caller's
//! organization, the list and its filters, and good for 24 hours.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use entity::id::OrganizationId;
use hmac::{Hmac, KeyInit as _, Mac};
use serde::Serialize;
use sha2::Sha256;
use uuid::Uuid;

use crate::error::Error;

/// The least and most rows of a page, and how many it has when none is asked for.
pub const MAX_LIMIT: u32 = 200;
/// Rows of a page when no number is asked for.
pub const DEFAULT_LIMIT: u32 = 50;

const TOKEN_SECONDS: i64 = 24 * 3600;
const MAC_LEN: usize = 16;

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next_page: Option<String>,
}

/// Makes and reads page tokens.
#[derive(Debug)]
pub struct PageTokens {
    key: [u8; 32],
}

impl PageTokens {
    /// With a key that all processes have, so that they read each other's tokens.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Reads a token of this list.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`].
    pub fn read(
        &self,
        organization: OrganizationId,
        list: &impl Serialize,
        token: &str,
    ) -> Result<Uuid, Error> {
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| Error::InvalidPageToken)?;
        let (tag, rest) = bytes
            .split_first_chunk::<MAC_LEN>()
            .ok_or(Error::InvalidPageToken)?;
        let (after, until) = rest.split_first_chunk::<16>().ok_or(Error::InvalidPageToken)?;
        let until = i64::from_be_bytes(until.try_into().map_err(|_| Error::InvalidPageToken)?);
        let after = Uuid::from_bytes(*after);
        let good = self
            .mac(organization, list, after, until)
            .verify_truncated_left(tag)
            .is_ok();
        if good && until > Utc::now().timestamp() {
            Ok(after)
        } else {
            Err(Error::InvalidPageToken)
        }
    }

    /// Cuts a page of `limit` out of rows that were asked for with one more, and makes the token of the next one.
    pub fn page<T>(
        &self,
        organization: OrganizationId,
        list: &impl Serialize,
        limit: u32,
        mut rows: Vec<T>,
        id: impl Fn(&T) -> Uuid,
    ) -> Page<T> {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_page = rows
            .last()
            .filter(|_| more)
            .map(|last| self.token(organization, list, id(last), Utc::now()));
        Page {
            items: rows,
            next_page,
        }
    }

    fn token(
        &self,
        organization: OrganizationId,
        list: &impl Serialize,
        after: Uuid,
        now: DateTime<Utc>,
    ) -> String {
        let until = now.timestamp() + TOKEN_SECONDS;
        let tag = self.mac(organization, list, after, until).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&tag[..MAC_LEN], after.as_bytes(), &until.to_be_bytes()].concat())
    }

    fn mac(
        &self,
        organization: OrganizationId,
        list: &impl Serialize,
        after: Uuid,
        until: i64,
    ) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        mac.update(organization.0.as_bytes());
        mac.update(after.as_bytes());
        mac.update(&until.to_be_bytes());
        mac.update(&serde_json::to_vec(list).expect("a list's filters are plain data"));
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_bound_to_organization_list_and_filters() {
        let tokens = PageTokens { key: [7; 32] };
        let (one, two, row) = (OrganizationId::new(), OrganizationId::new(), Uuid::now_v7());
        let token = tokens.token(one, &("tenants", "active"), row, Utc::now());
        assert_eq!(tokens.read(one, &("tenants", "active"), &token).unwrap(), row);
        assert!(tokens.read(two, &("tenants", "active"), &token).is_err());
        assert!(tokens.read(one, &("tenants", "failed"), &token).is_err());
        assert!(
            PageTokens { key: [8; 32] }
                .read(one, &("tenants", "active"), &token)
                .is_err()
        );
    }

    #[test]
    fn a_token_ends_after_a_day() {
        let tokens = PageTokens { key: [7; 32] };
        let one = OrganizationId::new();
        let old = Utc::now() - chrono::Duration::hours(25);
        let token = tokens.token(one, &"tenants", Uuid::now_v7(), old);
        assert!(tokens.read(one, &"tenants", &token).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}") {
            let refused = PageTokens { key: [7; 32] }.read(OrganizationId::new(), &"tenants", &text).is_err();
            prop_assert!(refused);
        }
    }
}
