//! Rows that only rehearsals write: `wheelhouse dev`'s demo jobs and `wheelhouse bench`. No gateway and no worker of a
//! production fleet comes here.

mod bench_rows;
mod imported_rows;
mod list_rows;
