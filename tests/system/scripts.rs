//! What `make` and the scripts do, with a stand-in for cargo that builds nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// An executable file of a shell script.
fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("write");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
}

#[test]
fn make_demo_starts_the_program_where_cargo_put_it() {
    let folder = tempfile::tempdir().expect("folder");
    let elsewhere = folder.path().join("a target/x86_64-unknown-linux-gnu/release");
    let (demo, example) = (elsewhere.join("wheelhouse"), elsewhere.join("examples/hot_paths"));
    script(&demo, "echo \"ran $0 $*\"");
    let message =
        |program: &Path| format!("{{\"reason\":\"compiler-artifact\",\"executable\":\"{}\"}}", program.display());
    // As cargo does: libraries have no executable, and a message about the whole comes last.
    script(
        &folder.path().join("bin/cargo"),
        &format!(
            "case \"$*\" in *hot_paths*) program='{}';; *'--bin wheelhouse'*) program='{}';; *) exit 3;; esac\n\
             echo '{{\"reason\":\"compiler-artifact\",\"executable\":null}}'\n\
             echo \"$program\"\n\
             echo '{{\"reason\":\"build-finished\",\"success\":true}}'",
            message(&example),
            message(&demo)
        ),
    );
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").expect("PATH"));
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", &path).env_remove("MAKEFLAGS");
        let done = command.env("CARGO_TARGET_DIR", folder.path().join("a target")).output().expect("run");
        (String::from_utf8_lossy(&done.stdout).trim().to_owned(), done.status.code())
    };
    let (out, code) = run("make", &["--no-print-directory", "demo", "ARGS=--port 9000"]);
    assert_eq!((out, code), (format!("ran {} dev --port 9000", demo.display()), Some(0)));
    let (out, code) = run("sh", &["scripts/build.sh", "--example", "hot_paths"]);
    assert_eq!((out, code), (example.display().to_string(), Some(0)));
    assert_eq!(run("sh", &["scripts/build.sh", "--bin", "none"]).1, Some(3), "cargo's own failure is not lost");
}

#[test]
fn the_readme_names_the_rust_version_that_cargo_asks_for() {
    let read = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("read");
    let cargo = read("Cargo.toml");
    let version =
        cargo.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).expect("a version");
    assert!(read("README.md").contains(&format!("Rust {version} or newer")), "README.md does not name Rust {version}");
}
