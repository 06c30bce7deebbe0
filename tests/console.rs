//! The operator's page: what is served, that its files fit together, and what a browser does with it at real processes.

mod support;

#[path = "console/assets.rs"]
mod assets;
#[path = "console/control.rs"]
mod control;
#[path = "console/interruptions.rs"]
mod interruptions;
#[path = "console/operators.rs"]
mod operators;
#[path = "console/overview.rs"]
mod overview;
#[path = "console/page.rs"]
mod page;
#[path = "console/pages.rs"]
mod pages;
#[path = "console/served.rs"]
mod served;
