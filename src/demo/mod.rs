//! The kinds of job of `wheelhouse dev`'s demo: real work, written against the worker SDK like anybody's. No other worker
//! knows them.

mod csv_import;
mod demo_step;
mod pace;
mod rows;
mod sample;

pub use csv_import::CsvImport;
pub use demo_step::DemoStep;
pub use sample::{generate_csv, row_starts};

use crate::store::Store;
use crate::worker::WorkerBuilder;

/// Teaches a worker the kinds of the demo, which read files beneath `worker.files_root`. `store` is where the import
/// writes its rows.
pub fn teach(worker: WorkerBuilder, store: Store) -> WorkerBuilder {
    worker.job(CsvImport::new(store)).job(DemoStep)
}
