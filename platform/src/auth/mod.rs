//! Who is calling: passwords, sessions, the tokens that stand for them, and the keys that sign those.

pub mod bootstrap;
pub mod password;
pub mod sessions;
pub mod tokens;

pub use sessions::{SignIn, TokenPair};
pub use tokens::{Claims, TokenKeys};
