//! Foreign workers, from outside: real workers, real Redis and SQL, and a client that speaks the protocol frame by frame.

mod support;

#[path = "support/conformance.rs"]
mod conformance_suite;

mod remote {
    pub mod client;
    pub mod fixture;
    pub mod schema;

    mod access;
    mod attach;
    mod conformance;
    mod expect;
    mod faults;
    mod flood;
    mod hostile;
    mod idle;
    mod limits;
    mod link;
    mod orders;
    mod outages;
    mod outages_of_sql;
    mod timeouts;
}
