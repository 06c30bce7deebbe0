//! Libraries in C that are preloaded into programs which a test starts (`LD_PRELOAD`, on Linux alone).

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/support/NAME.c` into a library in this folder.
pub fn compile(name: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("{name}.so"));
    let source = format!("{}/tests/support/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    let compiled = compiler.output().unwrap_or_else(|error| {
        panic!("cannot start cc ({error}): install it with `make deps` (Debian: apt-get install build-essential)")
    });
    assert!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    library
}
