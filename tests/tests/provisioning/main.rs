//! A tenant's life, from the request to its last trace.

mod creation;
mod deletion;
mod reading;
