//! `job ls`, `campaign ls`, `job failed-items`, `queue failed`: lists, page by page.

use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::api::rows::{self, CampaignRow, FailedItemRow, JobRow};
use super::api::{Api, ApiArgs};
use super::job_state::describe_state;
use super::out::{self, say, tell};
use crate::domain::ResourceKind;

/// Rows of a page, where nobody asks for fewer.
const PAGE: u32 = 100;
/// Rows of the one page that `--json` prints, where nobody asks for another number: what the API gives.
const JSON_PAGE: u32 = 50;

/// A list of the API.
pub(super) struct List<'a> {
    /// With everything but `limit` and `after`: `/api/v1/jobs?status=running`.
    pub(super) path: &'a str,
    /// The name of its rows.
    pub(super) name: &'a str,
    /// At most so many; all where it is none.
    pub(super) limit: Option<u32>,
}

/// One line of a list: its cells, the last of them as long as it is.
pub(super) type Cells = Vec<String>;

impl List<'_> {
    fn address(&self, limit: u32, after: Option<&str>) -> String {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        format!("{}{joint}limit={limit}{after}", self.path)
    }

    /// Prints it: with `--json` the one page as the API gives it, whose `next` says whether there are more. Else all
    /// rows, on a terminal with a header; `--limit` is the only thing that cuts it, and then that is said.
    pub(super) async fn print<T: DeserializeOwned>(
        &self,
        api: &Api,
        args: &ApiArgs,
        header: &[&str],
        cells: impl Fn(&T, &Value) -> Cells,
    ) -> anyhow::Result<ExitCode> {
        if args.json {
            let answer = api.get(&self.address(self.limit.unwrap_or(JSON_PAGE), None)).await?;
            out::json(&answer.told_that(|json: &Value| rows::page::<T>(json, self.name, true).map(drop))?.json);
            return Ok(ExitCode::SUCCESS);
        }
        let (mut left, mut after) = (self.limit.unwrap_or(u32::MAX), None::<String>);
        let mut header = out::is_for_people().then(|| header.iter().map(|name| (*name).to_owned()).collect::<Cells>());
        loop {
            let answer = api.get(&self.address(left.min(PAGE), after.as_deref())).await?;
            let mut page = None;
            answer.told_that(|json: &Value| rows::page::<T>(json, self.name, true).map(|read| page = Some(read)))?;
            let Some(page) = page else { anyhow::bail!("a page that was not read") };
            let lines: Vec<Cells> =
                header.take().into_iter().chain(page.rows.iter().map(|(row, json)| cells(row, json))).collect();
            print_lines(&lines);
            left = left.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(u32::MAX));
            match page.next {
                None => return Ok(ExitCode::SUCCESS),
                Some(next) if after.as_ref() == Some(&next) => {
                    return Err(api.no_gateway("its list has a page that leads to itself"));
                }
                Some(_) if left == 0 => {
                    let limit = self.limit.unwrap_or_default();
                    tell!("there are more than these {limit}: give a larger --limit, or none for all");
                    return Ok(ExitCode::SUCCESS);
                }
                next => after = next,
            }
        }
    }
}

/// Cells under one another, the last one as it is.
pub(super) fn print_lines(lines: &[Cells]) {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (at, cell) in line.iter().enumerate() {
            match widths.get_mut(at) {
                Some(width) => *width = (*width).max(cell.chars().count()),
                None => widths.push(cell.chars().count()),
            }
        }
    }
    for line in lines {
        let last = line.len().saturating_sub(1);
        let cell = |(at, cell): (usize, &String)| match widths.get(at) {
            Some(width) if at != last => format!("{cell:<width$}"),
            _ => cell.clone(),
        };
        say!("{}", line.iter().enumerate().map(cell).collect::<Vec<_>>().join("  "));
    }
}

/// A time for a column; a dash for none.
fn time(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| out::time(text))
}

/// `job ls`, with this query.
pub(super) async fn jobs(api: &Api, args: &ApiArgs, query: &str, limit: Option<u32>) -> anyhow::Result<ExitCode> {
    let list = List { path: &format!("/api/v1/jobs{query}"), name: ResourceKind::Job.plural(), limit };
    let for_people = out::is_for_people();
    let header = ["ID", "STATUS", "DONE", "TYPE", "CREATED", "CHANGED", "TITLE"];
    list.print(api, args, &header, |row: &JobRow, json| {
        let (id, percent) = (row.id.to_string(), format!("{:>3}%", row.progress_percent));
        let title = row.title.clone();
        if for_people {
            let (made, changed) = (time(row.created_at.as_ref()), time(row.updated_at.as_ref()));
            vec![id, describe_state(json), percent, row.job_type.clone(), made, changed, title.unwrap_or_default()]
        } else {
            let name = title.unwrap_or_else(|| row.job_type.clone());
            vec![id, format!("{:<9}", describe_state(json)), percent, name]
        }
    })
    .await
}

/// `campaign ls`, with this query.
pub(super) async fn campaigns(api: &Api, args: &ApiArgs, query: &str, limit: Option<u32>) -> anyhow::Result<ExitCode> {
    let list = List { path: &format!("/api/v1/campaigns{query}"), name: ResourceKind::Campaign.plural(), limit };
    let for_people = out::is_for_people();
    let header = ["ID", "STATUS", "DONE", "JOBS", "FAILED", "CREATED", "CHANGED", "NAME"];
    list.print(api, args, &header, |row: &CampaignRow, json| {
        let (id, percent) = (row.id.to_string(), format!("{:>3}%", row.progress_percent));
        let name = row.name.clone().unwrap_or_default();
        if for_people {
            let (jobs, failed) = (row.items_total.to_string(), row.items_failed.to_string());
            let (made, changed) = (time(row.created_at.as_ref()), time(row.updated_at.as_ref()));
            vec![id, describe_state(json), percent, jobs, failed, made, changed, name]
        } else {
            vec![id, format!("{:<9}", describe_state(json)), percent, name]
        }
    })
    .await
}

/// All that a job could not do, page by page: with `--json` a page a line, as the API gives it.
pub(super) async fn failed_items(api: &Api, args: &ApiArgs, path: &str) -> anyhow::Result<ExitCode> {
    let mut after = None::<String>;
    loop {
        let cursor = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let answer = api.get(&format!("{path}?limit=1000{cursor}")).await?;
        let mut page = None;
        let told = answer.told_that(|json: &Value| {
            rows::page::<FailedItemRow>(json, "failed_items", true).map(|read| page = Some(read))
        })?;
        let Some(page) = page else { anyhow::bail!("a page that was not read") };
        if args.json {
            out::json(&told.json);
        } else {
            page.rows.iter().for_each(|(row, _)| say!("{}  {}", row.item, row.error));
        }
        match page.next {
            None => return Ok(ExitCode::SUCCESS),
            Some(next) if after.as_ref() == Some(&next) => {
                return Err(api.no_gateway("its list has a page that leads to itself"));
            }
            next => after = next,
        }
    }
}
