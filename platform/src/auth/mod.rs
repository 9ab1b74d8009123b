//! Who is calling: passwords, sessions, the tokens that stand for them, and the keys that sign those.

pub mod bootstrap;
pub mod password;
pub mod rotation;
pub mod sessions;
mod throttle;
pub mod tokens;

pub use rotation::Rotation;
pub(crate) use sessions::standing_query;
pub use sessions::{SignIn, TokenPair};
pub use throttle::SignInThrottle;
pub use tokens::{Claims, TokenKeys};
