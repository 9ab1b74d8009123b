//! The first start: the root organization and its owner, the key that signs tokens, the first pool and template. Two
//! processes that start at once make one of each.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use entity::{
    database_server,
    id::{DatabaseServerId, OrganizationId, UserId},
    membership, organization, organization_ancestor, signing_key, user,
    values::Role,
};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, EntityTrait as _, PaginatorTrait as _,
    TransactionTrait as _,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{password, tokens};
use crate::{error::Error, pools, secrets::Secrets};

/// Held while the first rows are made.
const BOOTSTRAP_LOCK: i64 = 0x626f_6f74_7374_7261;

/// What the first start is told.
#[derive(Debug)]
pub struct Bootstrap<'s> {
    /// The first owner's e-mail address.
    pub email: &'s str,
    /// Its password; one is generated where none is given.
    pub password: Option<&'s SecretString>,
    /// Where a generated one is written, with mode 0600.
    pub password_out: &'s Path,
    /// How many tenants the first pool may hold.
    pub pool_capacity: i32,
}

/// Makes what is missing. Later starts find everything and change nothing.
///
/// # Errors
/// The database doesn't answer, or the file for a generated password can't be written; then nothing has been made.
pub async fn bootstrap(
    database: &DatabaseConnection,
    secrets: &Secrets,
    new: &Bootstrap<'_>,
) -> Result<(), Error> {
    let transaction = database.begin().await?;
    transaction
        .execute_unprepared(&format!("SELECT pg_advisory_xact_lock({BOOTSTRAP_LOCK})"))
        .await?;
    if signing_key::Entity::find().count(&transaction).await? == 0 {
        tokens::create_signing_key(&transaction, secrets).await?;
    }
    match crate::root_organization(&transaction).await? {
        None => create_root(&transaction, secrets, new).await?,
        Some(_) => pools::prepare_again(&transaction).await?,
    }
    transaction.commit().await?;
    Ok(())
}

async fn create_root(
    transaction: &DatabaseTransaction,
    secrets: &Secrets,
    new: &Bootstrap<'_>,
) -> Result<(), Error> {
    let (root, owner, server, now) = (
        OrganizationId::new(),
        UserId::new(),
        DatabaseServerId::new(),
        chrono::Utc::now(),
    );
    let chosen = match new.password {
        Some(password) => password.clone(),
        None => {
            let generated = password::generate();
            write_once(new.password_out, generated.expose_secret()).map_err(|error| {
                Error::Internal(format!(
                    "BOOTSTRAP_PASSWORD_OUT: can't write {}: {error}",
                    new.password_out.display()
                ))
            })?;
            generated
        }
    };
    organization::Entity::insert(organization::ActiveModel {
        id: Set(root),
        parent_id: Set(None),
        name: Set("Platform".to_owned()),
        created_at: Set(now),
        updated_at: Set(now),
        revision: NotSet,
        deleted_at: NotSet,
    })
    .exec(transaction)
    .await?;
    organization_ancestor::Entity::insert(organization_ancestor::ActiveModel {
        organization_id: Set(root),
        ancestor_id: Set(root),
    })
    .exec_without_returning(transaction)
    .await?;
    user::Entity::insert(user::ActiveModel {
        id: Set(owner),
        email: Set(new.email.to_owned()),
        name: Set("Owner".to_owned()),
        password_hash: Set(password::hash(chosen).await?),
        created_at: Set(now),
        updated_at: Set(now),
        revision: NotSet,
    })
    .exec(transaction)
    .await?;
    membership::Entity::insert(membership::ActiveModel {
        user_id: Set(owner),
        organization_id: Set(root),
        role: Set(Role::Owner),
        created_at: Set(now),
        revision: NotSet,
        position: NotSet,
    })
    .exec_without_returning(transaction)
    .await?;
    database_server::Entity::insert(database_server::ActiveModel {
        id: Set(server),
        name: Set("default".to_owned()),
        created_at: Set(now),
    })
    .exec(transaction)
    .await?;
    pools::create_first(transaction, secrets, root, server, new.pool_capacity).await
}

/// Writes a file that only its owner can read. A leftover of a start that failed before its commit is replaced.
fn write_once(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}
