//! What a piece of work says about itself, until the writer passes it on: of progress and resume point only the
//! newest counts, of failed items each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::text::{SHORT_TEXT, excerpt};
use crate::domain::{FailedItem, Progress};
use crate::store::FAILED_ITEMS_KEPT;

/// Longest name of an item, in characters.
const LONGEST_ITEM: usize = 500;
/// Longest error of one.
const LONGEST_ERROR: usize = 2_000;

/// What one run says. Holds one progress and one resume point (what is not yet passed on is replaced), and no more
/// failed items than are kept at all: whatever comes beyond those would not be stored either.
#[derive(Default)]
pub(crate) struct Report {
    inner: Mutex<Inner>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Inner {
    latest: Latest,
    /// What the work itself says it is at.
    current_item: Option<String>,
    /// What keeps parts of it from going on, each under its process id: shown in place of that.
    hindrances: BTreeMap<i32, String>,
    /// By name: when it failed (as a version), and why.
    failed: HashMap<String, (u64, String)>,
}

#[derive(Default, Clone)]
pub(crate) struct Latest {
    pub(crate) progress: Progress,
    pub(crate) resume_point: Option<serde_json::Value>,
    /// Grow with each change.
    pub(crate) progress_version: u64,
    pub(crate) resume_version: u64,
    pub(crate) failed_version: u64,
}

impl Report {
    pub(crate) fn starting_at(progress: Progress) -> Self {
        let current_item = progress.current_item.clone();
        let latest = Latest { progress, ..Latest::default() };
        Self { inner: Mutex::new(Inner { latest, current_item, ..Inner::default() }), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn progress(&self, mut progress: Progress) {
        progress.progress_percent = progress.progress_percent.min(100);
        // It travels in every message about the job: one that is too long for those would never be heard of.
        progress.current_item = progress.current_item.map(|item| excerpt(&item, SHORT_TEXT).into_owned());
        let inner = &mut *self.lock();
        inner.current_item.clone_from(&progress.current_item);
        self.show(inner, progress);
    }

    /// What keeps a program of the work from going on, in words; `None` when that is over, or the program is.
    pub(crate) fn hindrance(&self, program: i32, words: Option<String>) {
        let inner = &mut *self.lock();
        match words {
            Some(words) => inner.hindrances.insert(program, bounded(&words, LONGEST_ITEM)),
            None => inner.hindrances.remove(&program),
        };
        let progress = inner.latest.progress.clone();
        self.show(inner, progress);
    }

    fn show(&self, inner: &mut Inner, mut progress: Progress) {
        let hindrance = inner.hindrances.values().next().cloned();
        progress.current_item = hindrance.or_else(|| inner.current_item.clone());
        if inner.latest.progress != progress {
            inner.latest.progress = progress;
            inner.latest.progress_version += 1;
            self.changed.notify_one();
        }
    }

    pub(crate) fn save(&self, point: serde_json::Value) {
        let latest = &mut self.lock().latest;
        latest.resume_point = Some(point);
        latest.resume_version += 1;
        self.changed.notify_one();
    }

    pub(crate) fn failed_item(&self, item: &str, error: &str) {
        let item = bounded(item, LONGEST_ITEM);
        let inner = &mut *self.lock();
        if inner.failed.len() >= FAILED_ITEMS_KEPT && !inner.failed.contains_key(&item) {
            return;
        }
        inner.latest.failed_version += 1;
        inner.failed.insert(item, (inner.latest.failed_version, bounded(error, LONGEST_ERROR)));
        self.changed.notify_one();
    }

    pub(crate) fn latest(&self) -> Latest {
        self.lock().latest.clone()
    }

    /// Everything, of one moment: a resume point never comes without what failed before it.
    pub(crate) fn everything(&self) -> (Latest, Vec<FailedItem>) {
        let inner = self.lock();
        let mut failed: Vec<_> = inner.failed.iter().collect();
        failed.sort_unstable_by_key(|(_, (version, _))| *version);
        let item =
            |(item, (_, error)): (&String, &(u64, String))| FailedItem { item: item.clone(), error: error.clone() };
        (inner.latest.clone(), failed.into_iter().map(item).collect())
    }

    /// What failed up to that version is in SQL.
    pub(crate) fn stored(&self, failed_version: u64) {
        self.lock().failed.retain(|_, (version, _)| *version > failed_version);
    }
}

/// Without NUL, which PostgreSQL cannot keep, and not too long.
fn bounded(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_fails_again_while_the_first_is_being_stored_is_kept() {
        let report = Report::default();
        report.failed_item("a", "one");
        report.failed_item("b", "two");
        report.failed_item("a", "three");
        let (first, failed) = report.everything();
        let words: Vec<(&str, &str)> = failed.iter().map(|f| (f.item.as_str(), f.error.as_str())).collect();
        assert_eq!(words, [("b", "two"), ("a", "three")]);
        report.failed_item("b", "four");
        report.stored(first.failed_version);
        let (second, failed) = report.everything();
        assert_eq!((failed.len(), failed[0].error.as_str()), (1, "four"));
        assert!(second.failed_version > first.failed_version);
    }

    #[test]
    fn what_hinders_the_work_is_shown_in_place_of_what_it_is_at() {
        let report = Report::default();
        let at = |item: &str| Progress { current_item: Some(item.to_owned()), ..Progress::default() };
        let shown = || report.latest().progress.current_item;
        report.progress(at("row 1"));
        report.hindrance(7, Some("Stopped".to_owned()));
        report.hindrance(8, Some("Stopped, too".to_owned()));
        report.progress(at("row 2"));
        assert_eq!(shown().as_deref(), Some("Stopped"));
        report.hindrance(7, None);
        assert_eq!(shown().as_deref(), Some("Stopped, too"));
        report.hindrance(8, None);
        assert_eq!(shown().as_deref(), Some("row 2"));
    }

    #[test]
    fn no_more_is_held_than_is_kept() {
        let report = Report::default();
        for n in 0..FAILED_ITEMS_KEPT + 5 {
            report.failed_item(&n.to_string(), "no");
        }
        report.failed_item("0", "again\0");
        let (_, failed) = report.everything();
        assert_eq!(failed.len(), FAILED_ITEMS_KEPT);
        assert_eq!(failed.last().map(|f| f.error.as_str()), Some("again\u{fffd}"));
        report.failed_item("x", &"y".repeat(LONGEST_ERROR * 2));
    }
}
