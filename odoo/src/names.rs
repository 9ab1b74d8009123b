//! Names of what Odoo's pools are made of: databases, roles and pools.
//!
//! A database and its role share one name, made of an id and never of anything a customer typed. Parsing is the
//! only way in, so a [`DatabaseName`] can always be sent to a server, put in a path or in a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Letters of a TypeID's suffix: Crockford's base 32 in lower case, without `i`, `l`, `o` and `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a suffix: 128 bits, five a character, two zero bits in front.
const SUFFIX_LENGTH: usize = 26;

/// A text that is not one of the platform's names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

/// What a database is for; its prefix tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseKind {
    /// `t_…`: a tenant's own database.
    Tenant,
    /// `tpl_…`: a template that tenants are cloned from.
    Template,
    /// `pool_…`: the database over which the processes of one pool notify each other.
    Bus,
}

impl DatabaseKind {
    const fn prefix(self) -> &'static str {
        match self {
            DatabaseKind::Tenant => "t_",
            DatabaseKind::Template => "tpl_",
            DatabaseKind::Bus => "pool_",
        }
    }
}

/// The name of a database on a tenants' server, and of the role that uses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName {
    text: String,
}

impl DatabaseName {
    /// The database of the tenant with this id.
    #[must_use]
    pub fn tenant(id: Uuid) -> Self {
        Self::of(DatabaseKind::Tenant, id)
    }

    /// The template whose content `fingerprint` describes: equal fingerprints name the same template.
    #[must_use]
    pub fn template(fingerprint: &str) -> Self {
        let digest = Sha256::digest(fingerprint.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self::of(DatabaseKind::Template, Uuid::from_bytes(bytes))
    }

    fn of(kind: DatabaseKind, id: Uuid) -> Self {
        Self {
            text: format!("{}{}", kind.prefix(), suffix(id)),
        }
    }

    /// The name as the server knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the database is for.
    #[must_use]
    pub fn kind(&self) -> DatabaseKind {
        // `t_` and `tpl_` differ in their second letter, so the order does not matter.
        [DatabaseKind::Tenant, DatabaseKind::Template, DatabaseKind::Bus]
            .into_iter()
            .find(|kind| self.text.starts_with(kind.prefix()))
            .expect("a name is only made with the prefix of a kind")
    }

    /// The id in the name.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let suffix = &self.text[self.kind().prefix().len()..];
        parse_suffix(suffix).expect("a name is only made with a valid suffix")
    }
}

impl FromStr for DatabaseName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        [DatabaseKind::Tenant, DatabaseKind::Template, DatabaseKind::Bus]
            .into_iter()
            .any(|kind| {
                text.strip_prefix(kind.prefix())
                    .is_some_and(|suffix| parse_suffix(suffix).is_some())
            })
            .then(|| Self {
                text: text.to_owned(),
            })
            .ok_or_else(|| NameError {
                text: text.to_owned(),
                expected: "the name of a tenant's, template's or pool's database",
            })
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.text
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The id of a pool: one group of Odoo processes with a key, a bus database and containers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId(Uuid);

impl PoolId {
    /// The pool with this id.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as it is stored.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The pool's bus database, and its role: what Odoo's processes use where stock Odoo uses `postgres`.
    #[must_use]
    pub fn bus_database(self) -> DatabaseName {
        DatabaseName::of(DatabaseKind::Bus, self.0)
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool_{}", suffix(self.0))
    }
}

impl FromStr for PoolId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.strip_prefix("pool_")
            .and_then(parse_suffix)
            .map(Self)
            .ok_or_else(|| NameError {
                text: text.to_owned(),
                expected: "a pool's id",
            })
    }
}

impl TryFrom<String> for PoolId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> Self {
        id.to_string()
    }
}

/// The suffix of a TypeID: the 128 bits of the id in base 32, most significant first.
fn suffix(id: Uuid) -> String {
    let bits = id.as_u128();
    (0..SUFFIX_LENGTH)
        .rev()
        .map(|position| {
            let index = usize::try_from((bits >> (5 * position)) & 31).expect("five bits fit");
            char::from(ALPHABET[index])
        })
        .collect()
}

fn parse_suffix(text: &str) -> Option<Uuid> {
    // The first character holds only three bits: a greater one would overflow and give one id two names.
    if text.len() != SUFFIX_LENGTH || text.as_bytes()[0] > b'7' {
        return None;
    }
    let mut bits = 0_u128;
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = (bits << 5) | u128::try_from(value).expect("an index below 32 fits");
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_follow_the_typeid_specification() {
        // Vectors of the TypeID specification (valid.yml).
        for (uuid, text) in [
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
            assert_eq!(suffix(uuid), text);
            assert_eq!(parse_suffix(text), Some(uuid));
        }
    }

    #[test]
    fn only_the_platforms_own_names_parse() {
        for text in [
            "postgres",
            "t_",
            "t_01h455vb4pex5vsknk084sn02",
            "t_01h455vb4pex5vsknk084sn02qq",
            "t_81h455vb4pex5vsknk084sn02q",
            "t_01h455vb4pex5vsknk084sn0;q",
            "T_01h455vb4pex5vsknk084sn02q",
            "t_01H455VB4PEX5VSKNK084SN02Q",
            "../01h455vb4pex5vsknk084sn02q",
            "x_01h455vb4pex5vsknk084sn02q",
        ] {
            assert!(text.parse::<DatabaseName>().is_err(), "{text}");
        }
        let name: DatabaseName = "tpl_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        assert_eq!(name.kind(), DatabaseKind::Template);
        assert_eq!(
            DatabaseName::tenant(name.id()).as_str(),
            "t_01h455vb4pex5vsknk084sn02q"
        );
    }

    #[test]
    fn a_pools_bus_database_is_named_as_the_pool() {
        let pool = PoolId::new(Uuid::from_u128(7));
        assert_eq!(pool.bus_database().as_str(), pool.to_string());
        assert_eq!(pool.bus_database().kind(), DatabaseKind::Bus);
        assert_eq!(pool.to_string().parse(), Ok(pool));
    }
}
