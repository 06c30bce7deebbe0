//! The kinds of job of `wheelhouse dev`'s demo: real work, and examples of how job code is written. No other worker knows
//! them.

mod csv_import;
mod demo_step;
mod pace;
mod rows;
mod sample;

pub use csv_import::CsvImport;
pub use demo_step::DemoStep;
pub use sample::{generate_csv, row_starts};
