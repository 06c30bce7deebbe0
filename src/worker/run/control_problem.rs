//! What keeps a program from going on although nobody has paused it, shown to whoever watches the job.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::run_progress::RunProgress;
use crate::domain::Resource;

/// Shows the problems of one program in the log and in the job's progress, until the work ends. `program` tells several
/// programs of one job apart.
pub(crate) async fn report_control_problems(
    mut changes: BoxStream<'static, Option<String>>,
    program: i32,
    progress: Arc<RunProgress>,
    job: Resource,
) {
    while let Some(problem) = changes.next().await {
        match &problem {
            Some(hindrance) => {
                tracing::warn!(job_id = %job.id, tenant_id = %job.tenant, hindrance, "worker.program_stopped");
            }
            None => tracing::info!(job_id = %job.id, tenant_id = %job.tenant, "worker.program_goes_on"),
        }
        progress.control_problem(program, problem);
    }
    progress.control_problem(program, None);
}
