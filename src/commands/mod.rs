//! One module a command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod devices;
pub(crate) mod encode;
pub(crate) mod grammar;
pub(crate) mod health;
pub(crate) mod locate;
pub(crate) mod models;
pub(crate) mod progress;
mod rows;
pub(crate) mod run;
pub(crate) mod speech;
pub(crate) mod template;
pub(crate) mod tools;
pub(crate) mod version;
