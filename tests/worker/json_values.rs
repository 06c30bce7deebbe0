//! What job code may save and give back: JSON that the next run and every reader can read, and nothing else.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wheelhouse::domain::{JobStatus, Resource};
use wheelhouse::store::NewJob;
use wheelhouse::worker::JobContext;

use crate::fixture::{Code, WorkerFixture, blank, exact};

/// So many arrays inside one another.
fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}

/// What stands in the job's row as its resume point.
async fn resume_point(fixture: &WorkerFixture, job: &Resource) -> Option<String> {
    let read = sqlx::query_scalar("SELECT resume_point FROM jobs WHERE tenant_id = $1 AND id = $2");
    let read = read.bind(job.tenant.as_str()).bind(job.id.as_str());
    read.fetch_one(&mut fixture.connection().await).await.expect("the job's row")
}

/// Runs a job with retries to spare, whose parameters are its id, until it has ended so at its first try.
async fn ended(fixture: &WorkerFixture, id: &str, status: JobStatus) -> (Resource, wheelhouse::domain::Job) {
    let job = fixture.make(NewJob { max_retries: 5, parameters: exact(json!(id)), ..blank(id) }).await;
    let row = fixture.until_status(&job, status).await;
    assert_eq!(row.retry_count, 0, "{id}: {:?}", row.error_message);
    (job, row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_that_could_not_be_read_back_fails_the_job_at_once_in_words_and_the_earlier_one_stays() {
    let fixture = WorkerFixture::new().await;
    let code = Code(|ctx: JobContext| async move {
        ctx.save(&json!({"row": 7}))?;
        match ctx.parameters_as::<String>()?.as_str() {
            "NaN" => ctx.save(&BTreeMap::from([("rate", f64::NAN)]))?,
            "infinity" => ctx.save(&[1.0, f64::INFINITY])?,
            "beyond" => ctx.save(&BTreeMap::from([("total", u128::from(u64::MAX) + 1)]))?,
            "deep" => ctx.save(&nested(200))?,
            _ => ctx.save(&nested(127))?,
        }
        Ok(json!("it was taken"))
    });
    let worker = fixture.coder("w1", code).await;
    for (id, words) in [
        ("NaN", "The resume point has a number that JSON cannot hold (NaN) at .rate"),
        ("infinity", "The resume point has a number that JSON cannot hold (infinity) at [1]"),
        ("beyond", "a whole number that does not fit into 64 bits (18446744073709551616) at .total: keep it as text"),
        ("deep", "The resume point has more than 127 arrays and objects inside one another"),
    ] {
        let (job, row) = ended(&fixture, id, JobStatus::Failed).await;
        let error = row.error_message.expect("words");
        assert!(error.contains(words), "{id}: {error}");
        assert_eq!(resume_point(&fixture, &job).await.as_deref(), Some(r#"{"row":7}"#), "{id}");
    }
    let (job, _) = ended(&fixture, "deepest", JobStatus::Completed).await;
    assert_eq!(resume_point(&fixture, &job).await, Some(nested(127).to_string()));
    worker.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_could_not_be_read_fails_the_job_at_once_in_words() {
    let fixture = WorkerFixture::new().await;
    let code = Code(|ctx: JobContext| async move {
        match ctx.parameters_as::<String>()?.as_str() {
            "NaN" => ctx.result(&BTreeMap::from([("rate", f64::NAN)])),
            "infinity" => ctx.result(&[1.0, f64::NEG_INFINITY]),
            "beyond" => ctx.result(&(u128::from(u64::MAX) + 1)),
            "deep" => ctx.result(&nested(128)),
            "deep-by-itself" => Ok(nested(128)),
            "null" => Ok(json!({"rate": f64::NAN})),
            _ => ctx.result(&BTreeMap::from([("rows", u64::MAX)])),
        }
    });
    let worker = fixture.coder("w1", code).await;
    for (id, words) in [
        ("NaN", "The job's result has a number that JSON cannot hold (NaN) at .rate"),
        ("infinity", "The job's result has a number that JSON cannot hold (-infinity) at [1]"),
        ("beyond", "The job's result has a whole number that does not fit into 64 bits (18446744073709551616)"),
        ("deep", "The job's result has more than 127 arrays and objects inside one another"),
        ("deep-by-itself", "The job's result has more than 127 arrays and objects inside one another"),
    ] {
        let error = ended(&fixture, id, JobStatus::Failed).await.1.error_message.expect("words");
        assert!(error.contains(words), "{id}: {error}");
    }
    // What `json!` has made null came as null: that is why there is `ctx.result`.
    for (id, result) in [("null", r#"{"rate":null}"#), ("good", r#"{"rows":18446744073709551615}"#)] {
        assert_eq!(ended(&fixture, id, JobStatus::Completed).await.1.result.as_str(), result, "{id}");
    }
    worker.drain().await;
}
