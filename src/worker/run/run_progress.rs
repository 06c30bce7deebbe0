//! What a run has reported and what is still to be written of it: of its progress and its resume point only the newest
//! counts, of its failed items each one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::run_output::RunOutput;
use crate::domain::text::{MAX_SHORT_TEXT, excerpt};
use crate::domain::{FailedItem, JsonText, Progress};
use crate::store::MAX_FAILED_ITEMS;

/// Longest name of an item, in characters.
const MAX_ITEM_LENGTH: usize = 500;
/// Longest error of an item, in characters.
const MAX_ERROR_LENGTH: usize = 2_000;

/// The reports of one run. It holds one progress and one resume point (a newer one replaces it), and no more failed items
/// than SQL keeps of a job: whatever comes beyond those would not be stored either.
#[derive(Default)]
pub(crate) struct RunProgress {
    inner: Mutex<ProgressInner>,
    /// There is a newer progress.
    pub(crate) reported: Notify,
    /// There is something to be written into SQL.
    pub(crate) to_save: Notify,
    /// What it prints.
    pub(crate) output: Arc<RunOutput>,
}

#[derive(Default)]
struct ProgressInner {
    latest: LatestProgress,
    /// The item that the work itself names as the current one.
    current_item: Option<String>,
    /// What keeps programs of the work from going on, each under its process id: shown in place of the current item.
    control_problems: BTreeMap<i32, String>,
    /// The progress has changed since the last [`RunProgress::snapshot`].
    is_progress_new: bool,
    /// The failed items by name: the version at which each failed, and its error.
    failed: HashMap<String, (u64, String)>,
}

#[derive(Default, Clone)]
pub(crate) struct LatestProgress {
    pub(crate) progress: Progress,
    pub(crate) resume_point: Option<JsonText>,
    /// The versions grow with each change.
    pub(crate) progress_version: u64,
    pub(crate) resume_version: u64,
    pub(crate) failed_version: u64,
}

impl RunProgress {
    pub(crate) fn starting_at(progress: Progress) -> Self {
        let current_item = progress.current_item.clone();
        let latest = LatestProgress { progress, ..LatestProgress::default() };
        Self {
            inner: Mutex::new(ProgressInner { latest, current_item, ..ProgressInner::default() }),
            reported: Notify::new(),
            to_save: Notify::new(),
            output: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ProgressInner> {
        self.inner.lock()
    }

    pub(crate) fn progress(&self, mut progress: Progress) {
        progress.progress_percent = progress.progress_percent.min(100);
        // It travels in every message about the job: one that is too long for those would never be heard of.
        progress.current_item = progress.current_item.map(|item| excerpt(&item, MAX_SHORT_TEXT).into_owned());
        let inner = &mut *self.lock();
        inner.current_item.clone_from(&progress.current_item);
        self.show(inner, progress);
    }

    /// What keeps a program of the work from going on, in message; `None` when that is over, or the program is.
    pub(crate) fn control_problem(&self, program: i32, message: Option<String>) {
        let inner = &mut *self.lock();
        match message {
            Some(message) => inner.control_problems.insert(program, shorten(&message, MAX_ITEM_LENGTH)),
            None => inner.control_problems.remove(&program),
        };
        let progress = inner.latest.progress.clone();
        self.show(inner, progress);
    }

    fn show(&self, inner: &mut ProgressInner, mut progress: Progress) {
        let control_problem = inner.control_problems.values().next().cloned();
        progress.current_item = control_problem.or_else(|| inner.current_item.clone());
        if inner.latest.progress != progress {
            inner.latest.progress = progress;
            inner.latest.progress_version += 1;
            self.reported.notify_one();
            // Once: it may change a thousand times until it is written.
            if !std::mem::replace(&mut inner.is_progress_new, true) {
                self.to_save.notify_one();
            }
        }
    }

    pub(crate) fn save(&self, point: JsonText) {
        let latest = &mut self.lock().latest;
        latest.resume_point = Some(point);
        latest.resume_version += 1;
        self.to_save.notify_one();
    }

    pub(crate) fn failed_item(&self, item: &str, error: &str) {
        let item = shorten(item, MAX_ITEM_LENGTH);
        let inner = &mut *self.lock();
        if inner.failed.len() >= MAX_FAILED_ITEMS && !inner.failed.contains_key(&item) {
            return;
        }
        inner.latest.failed_version += 1;
        inner.failed.insert(item, (inner.latest.failed_version, shorten(error, MAX_ERROR_LENGTH)));
        self.to_save.notify_one();
    }

    pub(crate) fn latest(&self) -> LatestProgress {
        self.lock().latest.clone()
    }

    /// How often the progress, the resume point and the failed items have changed.
    pub(crate) fn versions(&self) -> (u64, u64, u64) {
        let latest = &self.lock().latest;
        (latest.progress_version, latest.resume_version, latest.failed_version)
    }

    /// Everything that there is at one moment: a resume point never comes without the items that failed before it.
    pub(crate) fn snapshot(&self) -> (LatestProgress, Vec<FailedItem>) {
        let inner = &mut *self.lock();
        inner.is_progress_new = false;
        let mut failed: Vec<_> = inner.failed.iter().collect();
        failed.sort_unstable_by_key(|(_, (version, _))| *version);
        let item =
            |(item, (_, error)): (&String, &(u64, String))| FailedItem { item: item.clone(), error: error.clone() };
        (inner.latest.clone(), failed.into_iter().map(item).collect())
    }

    /// The items that failed up to this version are in SQL.
    pub(crate) fn mark_stored(&self, failed_version: u64) {
        self.lock().failed.retain(|_, (version, _)| *version > failed_version);
    }
}

/// Without NUL, which PostgreSQL cannot keep, and not too long.
fn shorten(text: &str, max_length: usize) -> String {
    text.chars().take(max_length).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_fails_again_while_the_first_is_being_stored_is_kept() {
        let report = RunProgress::default();
        report.failed_item("a", "one");
        report.failed_item("b", "two");
        report.failed_item("a", "three");
        let (first, failed) = report.snapshot();
        let message: Vec<(&str, &str)> = failed.iter().map(|f| (f.item.as_str(), f.error.as_str())).collect();
        assert_eq!(message, [("b", "two"), ("a", "three")]);
        report.failed_item("b", "four");
        report.mark_stored(first.failed_version);
        let (second, failed) = report.snapshot();
        assert_eq!((failed.len(), failed[0].error.as_str()), (1, "four"));
        assert!(second.failed_version > first.failed_version);
    }

    #[test]
    fn what_hinders_the_work_is_shown_in_place_of_what_it_is_at() {
        let report = RunProgress::default();
        let at = |item: &str| Progress { current_item: Some(item.to_owned()), ..Progress::default() };
        let shown = || report.latest().progress.current_item;
        report.progress(at("row 1"));
        report.control_problem(7, Some("Stopped".to_owned()));
        report.control_problem(8, Some("Stopped, too".to_owned()));
        report.progress(at("row 2"));
        assert_eq!(shown().as_deref(), Some("Stopped"));
        report.control_problem(7, None);
        assert_eq!(shown().as_deref(), Some("Stopped, too"));
        report.control_problem(8, None);
        assert_eq!(shown().as_deref(), Some("row 2"));
    }

    #[test]
    fn no_more_is_held_than_is_kept() {
        let report = RunProgress::default();
        for n in 0..MAX_FAILED_ITEMS + 5 {
            report.failed_item(&n.to_string(), "no");
        }
        report.failed_item("0", "again\0");
        let (_, failed) = report.snapshot();
        assert_eq!(failed.len(), MAX_FAILED_ITEMS);
        assert_eq!(failed.last().map(|f| f.error.as_str()), Some("again\u{fffd}"));
        report.failed_item("x", &"y".repeat(MAX_ERROR_LENGTH * 2));
    }
}
