//! Who may do what: every operation of the API's document with every kind of credential, and what each may see.
//!
//! The outcome follows from the document and the printed table of permissions. A new operation fails here until it has an
//! example of a request.

mod credentials;
mod document;
mod examples;
mod matrix;
mod oracle;

use tokio::sync::Mutex;

/// These tests compare all tables before and after a request: one at a time.
static ALONE: Mutex<()> = Mutex::const_new(());
