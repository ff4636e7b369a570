//! The server as a program, and its clients.

mod any_labels;
mod endpoints;
mod faults;
mod manual;
mod operations;
mod page;
mod server;
#[path = "../support/mod.rs"]
mod support;
