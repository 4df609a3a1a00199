//! What RUN steps are given, `--secret`, `--ssh`, `--allow`, limits, and what is left when they fail: as root, and as an
//! ordinary user who has subordinate ids.

mod bench;
mod caches;
mod failed;
mod limits;
mod nowhere;
mod secrets;
mod ssh;
