//! The table of every HTTP path but the sockets' and the console's. `openapi.json` describes the same
//! ones; a test holds the two together.

use crate::domain::{Action, ResourceKind};

/// The description of this API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The process lives.
    Health,
    /// Redis, SQL and the subscription really deliver.
    Ready,
    /// Prometheus.
    Metrics,
    /// The description of this API.
    OpenApi,
    /// Who the token is.
    Me,
    /// Live workers.
    Workers,
    /// How jobs and campaigns are called.
    Names,
    /// How many jobs ended when.
    Throughput,
    /// The audit trail.
    Audit,
    /// Whether the newest of it is as it was written.
    VerifyAudit,
    /// Refuse tokens that have not expired.
    Revoke,
    /// Many commands at once.
    Batch,
    /// Scheduled commands.
    Schedules,
    /// Take one of them back.
    Withdraw,
    /// Commands without a result.
    Waiting,
    /// Commands that failed for good.
    Failed,
    /// One of them.
    FailedCommand,
    /// Ask for it again.
    Requeue,
    /// Forget it.
    Forget,
    /// Jobs or campaigns of the tenant.
    List(ResourceKind),
    /// A new one.
    Create(ResourceKind),
    /// One of them.
    Show(ResourceKind),
    /// Cancel, pause or resume.
    Command(ResourceKind, Action),
    /// What a job could not do.
    FailedItems,
    /// The whole text of a job's error.
    JobError,
    /// Run a job again.
    Rerun,
    /// Run many jobs again.
    RerunMany,
    /// What a job prints.
    Output,
    /// Jobs for a campaign that is there.
    AddJobs,
    /// A campaign gets no more jobs.
    Close,
    /// What became of a command.
    Result(ResourceKind),
}

/// One line of the table. `{…}` in a pattern stands for one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) pattern: &'static str,
    pub(super) endpoint: Endpoint,
}

const fn get(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route { method: "GET", pattern, endpoint }
}

const fn post(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route { method: "POST", pattern, endpoint }
}

const fn delete(pattern: &'static str, endpoint: Endpoint) -> Route {
    Route { method: "DELETE", pattern, endpoint }
}

use Action::{Cancel, Pause, Resume};
use Endpoint::{
    AddJobs, Audit, Batch, Close, Command, Create, Failed, FailedCommand, FailedItems, Forget, Health, JobError, List,
    Me, Metrics, OpenApi, Output, Ready,
};
use Endpoint::{
    Names, Requeue, Rerun, RerunMany, Revoke, Schedules, Show, Throughput, VerifyAudit, Waiting, Withdraw, Workers,
};
use ResourceKind::{Campaign, Job};

/// Every route.
pub(super) const ROUTES: [Route; 40] = [
    get("/healthz", Health),
    get("/readyz", Ready),
    get("/metrics", Metrics),
    get("/api/v1/openapi.json", OpenApi),
    get("/api/v1/me", Me),
    get("/api/v1/workers", Workers),
    get("/api/v1/names", Names),
    get("/api/v1/throughput", Throughput),
    get("/api/v1/audit", Audit),
    get("/api/v1/audit/verify", VerifyAudit),
    post("/api/v1/admin/revocations", Revoke),
    post("/api/v1/batch", Batch),
    get("/api/v1/schedules", Schedules),
    delete("/api/v1/schedules/{schedule_id}", Withdraw),
    get("/api/v1/queue/waiting", Waiting),
    get("/api/v1/queue/failed", Failed),
    get("/api/v1/queue/failed/{command_id}", FailedCommand),
    delete("/api/v1/queue/failed/{command_id}", Forget),
    post("/api/v1/queue/failed/{command_id}/requeue", Requeue),
    get("/api/v1/jobs", List(Job)),
    post("/api/v1/jobs", Create(Job)),
    post("/api/v1/jobs/rerun", RerunMany),
    get("/api/v1/jobs/{job_id}", Show(Job)),
    post("/api/v1/jobs/{job_id}/rerun", Rerun),
    get("/api/v1/jobs/{job_id}/output", Output),
    post("/api/v1/jobs/{job_id}/cancel", Command(Job, Cancel)),
    post("/api/v1/jobs/{job_id}/pause", Command(Job, Pause)),
    post("/api/v1/jobs/{job_id}/resume", Command(Job, Resume)),
    get("/api/v1/jobs/{job_id}/failed_items", FailedItems),
    get("/api/v1/jobs/{job_id}/error", JobError),
    get("/api/v1/jobs/{job_id}/commands/{command_id}", Endpoint::Result(Job)),
    get("/api/v1/campaigns", List(Campaign)),
    post("/api/v1/campaigns", Create(Campaign)),
    get("/api/v1/campaigns/{campaign_id}", Show(Campaign)),
    post("/api/v1/campaigns/{campaign_id}/jobs", AddJobs),
    post("/api/v1/campaigns/{campaign_id}/close", Close),
    post("/api/v1/campaigns/{campaign_id}/cancel", Command(Campaign, Cancel)),
    post("/api/v1/campaigns/{campaign_id}/pause", Command(Campaign, Pause)),
    post("/api/v1/campaigns/{campaign_id}/resume", Command(Campaign, Resume)),
    get("/api/v1/campaigns/{campaign_id}/commands/{command_id}", Endpoint::Result(Campaign)),
];

/// What a request leads to.
#[derive(Debug)]
pub(super) enum RouteMatch<'a> {
    /// The route, and the segments that stand for its `{…}`, in order.
    Route(&'static Route, Vec<&'a str>),
    /// The path exists, for these methods.
    WrongMethod(Vec<&'static str>),
    /// There is no such path.
    Nothing,
}

/// Looks a request up. HEAD is GET without its body, which the server leaves out by itself.
pub(super) fn find<'a>(method: &str, path: &'a str) -> RouteMatch<'a> {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut methods = Vec::new();
    for route in &ROUTES {
        let Some(segments) = matched(route.pattern, path) else { continue };
        if route.method == method {
            return RouteMatch::Route(route, segments);
        }
        methods.push(route.method);
    }
    if methods.is_empty() { RouteMatch::Nothing } else { RouteMatch::WrongMethod(methods) }
}

fn matched<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut segments = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(segments),
            (Some(name), Some(segment)) if name.starts_with('{') && !segment.is_empty() => segments.push(segment),
            (Some(name), Some(segment)) if name == segment => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_endpoints_and_other_methods_are_told_which_exist() {
        let endpoint = |method, path| match find(method, path) {
            RouteMatch::Route(route, segments) => Some((route.endpoint, segments)),
            _ => None,
        };
        assert_eq!(endpoint("HEAD", "/healthz"), Some((Health, vec![])));
        assert_eq!(endpoint("GET", "/api/v1/jobs/j1"), Some((Show(Job), vec!["j1"])));
        assert_eq!(endpoint("POST", "/api/v1/campaigns/c/pause"), Some((Command(Campaign, Pause), vec!["c"])));
        assert_eq!(endpoint("GET", "/api/v1/jobs/j/commands/c"), Some((Endpoint::Result(Job), vec!["j", "c"])));
        for path in ["/api/v1/jobs/", "/api/v1/jobs//cancel", "/api/v1/jobs/j/stop", "/api/v2/jobs", "/", "/healthz/"] {
            assert!(matches!(find("GET", path), RouteMatch::Nothing), "{path}");
        }
        assert!(matches!(find("DELETE", "/api/v1/jobs"), RouteMatch::WrongMethod(m) if m == ["GET", "POST"]));
    }

    #[test]
    fn every_path_stands_in_the_openapi_document_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).expect("JSON");
        let mut described: Vec<(String, String)> = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for method in item.as_object().expect("path item").keys().filter(|key| *key != "parameters") {
                described.push((method.to_ascii_uppercase(), path.clone()));
            }
        }
        // The sockets belong to another table; OpenAPI describes their handshake.
        described.retain(|(_, path)| !path.starts_with("/api/v1/realtime/"));
        let mut routed: Vec<(String, String)> =
            ROUTES.iter().map(|route| (route.method.to_owned(), route.pattern.to_owned())).collect();
        described.sort();
        routed.sort();
        assert_eq!(described, routed);
    }
}
