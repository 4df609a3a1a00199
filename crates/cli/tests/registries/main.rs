//! Settings about registries and logins: the files of other tools, as a user has them.

mod login;
mod settings;
mod user;
