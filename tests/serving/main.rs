//! The server as a program, and its clients.

mod endpoints;
mod faults;
mod manual;
mod operations;
mod page;
mod server;
#[path = "../support/mod.rs"]
mod support;
