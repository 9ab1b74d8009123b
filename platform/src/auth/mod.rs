//! Who is calling: passwords, sessions, the tokens that stand for them, and the keys that sign those.

pub mod bootstrap;
mod credential;
pub(crate) mod opaque;
pub mod password;
mod retention;
pub mod rotation;
pub mod secret;
pub mod sessions;
mod throttle;
pub mod tokens;

pub use credential::{Actor, Bearer, Credential, KnownKey};
pub use retention::{forget_refresh_tokens, forget_sessions};
pub use rotation::Rotation;
pub use sessions::{SignIn, TokenPair};
pub(crate) use sessions::{by_email, end_sessions};
pub use throttle::SignInThrottle;
pub use tokens::{Claims, TokenKeys};
