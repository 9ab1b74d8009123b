//! The audit log: who did what, on what, through which organization, and what was refused. An event is written in the
//! transaction of what it records; a sealer chains the events of each organization within a second; nobody changes one.

mod read;
mod record;
mod seal;
mod unknown;
mod verify;

pub use entity::audit_event::Model as EventRow;
pub use read::{AuditFilter, AuditReader, SealedEvent, actor_text, parse_id, target_text};
pub(crate) use record::{Doer, Entry, Event, Subject, record, write};
pub use seal::Sealer;
pub use verify::{Flaw, Verdict};
