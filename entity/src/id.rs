//! Typed ids: one Rust type per kind of row, so that a tenant's id can't be handed to a function that wants an
//! organization's. Outside the process an id is a [TypeID](https://github.com/jetify-com/typeid): a prefix, an
//! underscore, and the 128 bits of a UUIDv7 in Crockford's base 32, so that ids sort by creation.

use std::{fmt, str::FromStr};

use sea_orm::DeriveValueType;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use uuid::Uuid;

/// The alphabet of TypeID's suffix: Crockford's base 32 in lower case, without `i`, `l`, `o` and `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Length of a suffix: 130 bits hold the 128 of a UUID, so the first digit is at most 7.
const SUFFIX_LEN: usize = 26;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {prefix}_ and 26 lower-case base-32 digits")]
pub struct ParseIdError {
    prefix: &'static str,
}

/// Writes the 26 base-32 digits of a UUID, most significant first.
pub fn encode_suffix(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..SUFFIX_LEN)
        .rev()
        .map(|digit| {
            let index = usize::try_from((bits >> (digit * 5)) & 31).expect("five bits fit a usize");
            char::from(ALPHABET[index])
        })
        .collect()
}

/// Reads 26 base-32 digits. Upper case, look-alikes and overflow are refused: an id has one spelling.
pub fn decode_suffix(text: &str) -> Option<Uuid> {
    if text.len() != SUFFIX_LEN || !(b'0'..=b'7').contains(&text.as_bytes()[0]) {
        return None;
    }
    let mut bits = 0_u128;
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        bits = (bits << 5) | digit as u128;
    }
    Some(Uuid::from_u128(bits))
}

/// What all kinds of id have in common.
pub trait Id: Copy + From<Uuid> + Into<Uuid> + fmt::Display + FromStr<Err = ParseIdError> {
    /// The text before the underscore.
    const PREFIX: &'static str;
    /// An id that documentation may show.
    fn example() -> String {
        Self::from(Uuid::from_u128(0x0193_5c2f_7a10_7cc0_8d4e_5f60_7182_93a4)).to_string()
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id. Ids made later sort later.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id without its prefix: 26 lower-case base-32 digits.
            #[must_use]
            pub fn suffix(&self) -> String {
                encode_suffix(self.0)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
        }

        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode_suffix(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode_suffix)
                    .map(Self)
                    .ok_or(ParseIdError { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$")))
                    .examples([Self::example()])
                    .into()
            }
        }

        impl ToSchema for $name {}
    )+ };
}

ids! {
    /// An account; organizations form a tree.
    OrganizationId = "org";
    /// A person.
    UserId = "usr";
    /// One sign-in of a user.
    SessionId = "ses";
    /// An invitation to an organization.
    InvitationId = "inv";
    /// A credential of an organization, for programs.
    ApiKeyId = "key";
    /// An entry of the audit log.
    AuditEventId = "evt";
    /// One Odoo database with what belongs to it.
    TenantId = "ten";
    /// One long-running piece of work.
    OperationId = "op";
    /// A set of identical Odoo processes.
    PoolId = "pool";
    /// A Postgres server that holds tenants' databases.
    DatabaseServerId = "dbs";
    /// A prepared database that tenants are cloned from.
    TemplateId = "tpl";
    /// Something that is not as the tables say.
    DriftId = "drf";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_suffix_is_that_of_the_typeid_specification() {
        // Vectors of the specification's `valid` list.
        for (uuid, suffix) in [
            (
                "00000000-0000-0000-0000-000000000000",
                "00000000000000000000000000",
            ),
            (
                "00000000-0000-0000-0000-000000000020",
                "00000000000000000000000010",
            ),
            (
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
                "7zzzzzzzzzzzzzzzzzzzzzzzzz",
            ),
            (
                "01890a5d-ac96-774b-bcce-b302099a8057",
                "01h455vb4pex5vsknk084sn02q",
            ),
        ] {
            let uuid: Uuid = uuid.parse().unwrap();
            assert_eq!(encode_suffix(uuid), suffix);
            assert_eq!(decode_suffix(suffix), Some(uuid));
        }
    }

    #[test]
    fn an_id_of_another_kind_or_spelling_is_refused() {
        let id = TenantId::new().to_string();
        assert!(id.parse::<TenantId>().is_ok());
        assert!(id.parse::<UserId>().is_err());
        assert!(id.to_uppercase().parse::<TenantId>().is_err());
        assert!(format!("{id}0").parse::<TenantId>().is_err());
        assert!("ten_8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<TenantId>().is_err());
        assert!("ten_é1h455vb4pex5vsknk084sn0".parse::<TenantId>().is_err());
    }

    proptest! {
        #[test]
        fn every_uuid_survives_the_way_out_and_back(bits: u128) {
            let id = TenantId(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<TenantId>(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,64}") {
            drop(text.parse::<TenantId>());
            drop(format!("ten_{text}").parse::<TenantId>());
        }
    }
}
