//! The kinds of job of the demo, on real files.

use serde_json::json;
use wheelhouse::demo::{self, generate_csv, row_starts};
use wheelhouse::domain::{Action, JobStatus};
use wheelhouse::store::{FailedItemFilter, NewJob};

use crate::fixture::{WorkerFixture, blank, eventually, exact, value};

const ROWS: u64 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_paused_and_interrupted_brings_in_each_row_once() {
    let fixture = WorkerFixture::new().await;
    let path = fixture.folder().join("orders.csv");
    generate_csv(&path, ROWS).expect("write the file");
    let first = fixture.worker("w1", |builder| demo::teach(builder, fixture.store.clone())).await;
    // Slow enough to be met in the middle of it: at full speed it could be through before this test looks again.
    let parameters = json!({ "path": "orders.csv", "batch_rows": 1_000, "rows_per_second": 20_000 });
    let import = NewJob { job_type: "csv_import".to_owned(), parameters: exact(parameters), ..blank("import") };
    let job = fixture.make(import).await;
    let at = |rows: i64| {
        let (fixture, job) = (&fixture, &job);
        async move {
            eventually(&format!("{rows} rows are in"), || async {
                fixture.row(job).await.progress.items_processed >= rows
            })
            .await;
        }
    };
    at(10_000).await;
    assert_eq!(fixture.command(Action::Pause, &job).await, "pause_succeeded");
    let paused = fixture.store.imported(&job).await.expect("count");
    assert_eq!(fixture.row(&job).await.progress.items_processed, paused, "the row tells of every batch");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(fixture.store.imported(&job).await.expect("count"), paused);
    assert_eq!(fixture.command(Action::Resume, &job).await, "resume_succeeded");
    at(paused + 20_000).await;
    // Dies without a word: what it did in its last second is done again, and changes nothing.
    first.crash().await;
    let second = fixture.worker("w2", |builder| demo::teach(builder, fixture.store.clone())).await;
    at(paused + 60_000).await;
    second.drain().await;
    assert_eq!(fixture.row(&job).await.status, JobStatus::Pending);
    let third = fixture.worker("w3", |builder| demo::teach(builder, fixture.store.clone())).await;
    let row = fixture.until_status(&job, JobStatus::Completed).await;
    assert_eq!(row.result, json!({ "rows": ROWS, "imported": ROWS, "failed": 0 }));
    assert_eq!(fixture.store.imported(&job).await.expect("count"), ROWS as i64);
    assert_eq!((row.progress.items_total, row.progress.progress_percent), (Some(ROWS as i64), 100));
    third.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_cannot_be_read_are_counted_and_the_others_come_in() {
    let fixture = WorkerFixture::new().await;
    let path = fixture.folder().join("mixed.csv");
    let mut text = b"id,name\n1,Ada\n2\n3,\"a,\nb\"\n4,x,y\n".to_vec();
    text.extend(b"5,\xff\xfe\n6,last");
    std::fs::write(&path, text).expect("write the file");
    let worker = fixture.worker("w1", |builder| demo::teach(builder, fixture.store.clone())).await;
    let import =
        |id: &str, parameters| NewJob { job_type: "csv_import".to_owned(), parameters: exact(parameters), ..blank(id) };
    let job = fixture.make(import("mixed", json!({ "path": "mixed.csv", "batch_rows": 2 }))).await;
    let row = fixture.until_status(&job, JobStatus::Completed).await;
    assert_eq!(row.result, json!({ "rows": 6, "imported": 3, "failed": 3 }));
    assert_eq!((row.progress.items_succeeded, row.progress.items_failed), (3, 3));
    assert_eq!(fixture.store.imported(&job).await.expect("count"), 3);
    let filter = FailedItemFilter { job: job.clone(), after: None, limit: 10 };
    let rows = fixture.store.failed_items(&filter).await.expect("read").items;
    let told: Vec<&str> = rows.iter().map(|row| row.failed.item.as_str()).collect();
    assert_eq!(told, ["row 2", "row 4", "row 5"]);
    for (row, words) in rows.iter().zip(["1 field", "3 fields", "column 2 is not UTF-8"]) {
        assert!(row.failed.error.contains(words), "{row:?}");
    }

    let pipe = fixture.folder().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let endless = fixture.folder().join("endless.csv");
    std::fs::write(&endless, [b"id,name\n1,".as_slice(), &vec![b'x'; 9 * 1024 * 1024]].concat()).expect("write");
    let headless = fixture.folder().join("headless.csv");
    std::fs::write(&headless, vec![0; 9 * 1024 * 1024]).expect("write");
    for (id, parameters, words) in [
        ("pipe", json!({ "path": "pipe" }), "is not a file"),
        ("folder", json!({ "path": "." }), "is not a file"),
        ("endless", json!({ "path": "endless.csv" }), "Row 1: it is longer than 8 MiB"),
        ("headless", json!({ "path": "headless.csv" }), "it is longer than 8 MiB; is this a CSV file?"),
        ("missing", json!({ "path": "nowhere/at/all.csv" }), "There is no file"),
        ("wrong", json!({ "file": "x" }), "The parameters are wrong"),
    ] {
        let job = fixture.make(import(id, parameters)).await;
        let row = fixture.until_status(&job, JobStatus::Failed).await;
        assert!(row.error_message.as_deref().is_some_and(|e| e.contains(words)), "{row:?}");
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_of_a_job_leads_out_of_the_folder_and_no_error_tells_what_a_file_contains() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().expect("folder");
    let secret = outside.path().join("secret.csv");
    std::fs::write(&secret, "SECRET_HEADER\nSECRET_ROW\n").expect("write the file");
    let root = tempfile::tempdir().expect("folder");
    let fixture = WorkerFixture::with(&[("worker.files_root", &root.path().display().to_string())]).await;
    std::fs::create_dir(root.path().join("in")).expect("folder");
    for (link, target) in [
        ("link.csv", secret.as_path()),
        ("folder", outside.path()),
        ("environment", std::path::Path::new("/proc/self/environ")),
        ("in/up", std::path::Path::new("../..")),
        ("zeros", std::path::Path::new("/dev/zero")),
    ] {
        symlink(target, root.path().join(link)).expect("link");
    }
    let climb = format!("in/up/{}/secret.csv", outside.path().file_name().expect("name").display());
    let up = format!("../{}/secret.csv", outside.path().file_name().expect("name").display());
    // Also what is no secret at all: a link inside the folder leads where it says.
    std::fs::write(root.path().join("in/plain.csv"), "id\n1\n").expect("write the file");
    symlink("in/plain.csv", root.path().join("inner.csv")).expect("link");
    // Contents that are wrong in every way, row by row.
    let mut text = b"SECRET_HEADER,SECRET_COLUMN\nSECRET_ROW\nSECRET_ROW,SECRET,SECRET\n".to_vec();
    text.extend(b"SECRET_ROW,SECRET\xff\nSECRET_ROW,SECRET\0\n");
    std::fs::write(root.path().join("wrong.csv"), text).expect("write the file");

    let worker = fixture.worker("w1", |builder| demo::teach(builder, fixture.store.clone())).await;
    let paths = [&secret.display().to_string(), &climb, &up, "link.csv", "folder/secret.csv", "environment", "zeros"];
    let kinds = [("csv_import", json!({})), ("demo_step", json!({ "first_row": 1, "rows": 5 }))];
    for (kind, parameters) in &kinds {
        for (n, path) in paths.iter().enumerate() {
            let mut parameters = parameters.clone();
            parameters["path"] = json!(path);
            let id = format!("{}-{n}", kind.replace('_', "-"));
            let job = fixture
                .make(NewJob { job_type: (*kind).to_owned(), parameters: exact(parameters), ..blank(&id) })
                .await;
            let row = fixture.until_status(&job, JobStatus::Failed).await;
            let error = row.error_message.unwrap_or_default();
            assert!(error.contains("is not beneath the worker's folder of files"), "{path}: {error}");
            assert_eq!(fixture.store.imported(&job).await.expect("count"), 0, "{path}");
        }
    }
    let import = |id: &str, path: &str| NewJob {
        job_type: "csv_import".to_owned(),
        parameters: exact(json!({ "path": path })),
        ..blank(id)
    };
    let job = fixture.make(import("inner", "inner.csv")).await;
    fixture.until_status(&job, JobStatus::Completed).await;
    let job = fixture.make(import("wrong", "wrong.csv")).await;
    let row = fixture.until_status(&job, JobStatus::Completed).await;
    assert_eq!(row.result, json!({ "rows": 4, "imported": 0, "failed": 4 }));
    let filter = FailedItemFilter { job, after: None, limit: 10 };
    let told: Vec<_> = fixture.store.failed_items(&filter).await.expect("read").items;
    let words: Vec<&str> = told.iter().map(|told| told.failed.error.as_str()).collect();
    let expected = [
        "has 1 field, and the header has 2",
        "has 3 fields, and the header has 2",
        "column 2 is not UTF-8",
        "column 2 contains a zero byte",
    ];
    assert_eq!(words, expected);
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_settings_name_no_folder_reads_no_file() {
    let fixture = WorkerFixture::with(&[("worker.files_root", "")]).await;
    std::fs::write(fixture.folder().join("rows.csv"), "id\n1\n").expect("write the file");
    let worker = fixture.worker("w1", |builder| demo::teach(builder, fixture.store.clone())).await;
    for path in ["rows.csv".to_owned(), fixture.folder().join("rows.csv").display().to_string()] {
        let parameters = json!({ "path": path });
        let id = format!("import-{}", path.len());
        let job = fixture
            .make(NewJob { job_type: "csv_import".to_owned(), parameters: exact(parameters), ..blank(&id) })
            .await;
        let row = fixture.until_status(&job, JobStatus::Failed).await;
        assert!(row.error_message.is_some_and(|error| error.contains("worker.files_root names no folder")));
    }
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_a_campaign_read_their_share_of_the_file() {
    let fixture = WorkerFixture::new().await;
    let path = fixture.folder().join("orders.csv");
    generate_csv(&path, 500).expect("write the file");
    let worker = fixture.worker("w1", |builder| demo::teach(builder, fixture.store.clone())).await;
    let mut fingerprints = std::collections::HashSet::new();
    for (n, (first_row, rows)) in [(1, 200), (201, 200), (401, 100)].into_iter().enumerate() {
        let parameters =
            json!({ "path": "orders.csv", "first_row": first_row, "rows": rows, "rows_per_second": 2_000 });
        let step =
            NewJob { job_type: "demo_step".to_owned(), parameters: exact(parameters), ..blank(&format!("step-{n}")) };
        let job = fixture.make(step).await;
        let row = fixture.until_status(&job, JobStatus::Completed).await;
        assert_eq!(value(&row)["rows"], rows);
        assert!(value(&row)["words"].as_u64().is_some_and(|words| words > rows), "{:?}", row.result);
        fingerprints.insert(value(&row)["sha256"].to_string());
    }
    assert_eq!(fingerprints.len(), 3);
    // Told where its share begins, it finds the same without reading what comes before.
    for (n, first_byte) in row_starts(&path, 200).expect("read the file").into_iter().enumerate() {
        let (first_row, rows) = (n * 200 + 1, if n < 2 { 200 } else { 100 });
        let parameters =
            json!({ "path": "orders.csv", "first_row": first_row, "first_byte": first_byte, "rows": rows });
        let step =
            NewJob { job_type: "demo_step".to_owned(), parameters: exact(parameters), ..blank(&format!("direct-{n}")) };
        let row = fixture.until_status(&fixture.make(step).await, JobStatus::Completed).await;
        assert!(fingerprints.remove(&value(&row)["sha256"].to_string()), "share {n}: {:?}", row.result);
    }
    worker.drain().await;
}
