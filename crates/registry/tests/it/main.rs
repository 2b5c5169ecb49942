//! The registry crate against the programs people use, and against bad days.

mod access;
mod collect;
mod conformance;
mod faults;
mod foreign_clients;
mod foreign_registry;
mod gate;
mod graph;
mod hosts;
mod logins;
mod page;
mod pressure;
mod proxy;
mod resume;
mod scrub;
mod server_api;
mod stored;
mod stress;
mod support;
mod tags;
mod tls;
mod transfer;
mod tunnels;
mod upstream;
mod webhooks;
