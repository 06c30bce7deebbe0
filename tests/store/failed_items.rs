//! What jobs could not do, item by item.

use super::*;
use wheelhouse::domain::FailedItem;

fn failures(range: std::ops::Range<usize>, error: &str) -> Vec<FailedItem> {
    range.map(|n| FailedItem { item: format!("row {n}"), error: error.to_owned() }).collect()
}

async fn all(db: &Db, id: &str) -> Vec<FailedItemRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = db.store.failed_items(&FailedItemFilter { job: job(id), after, limit: 1_000 }).await.expect("read");
        rows.extend(page.items);
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

pub async fn each_failed_item_is_one_row_with_its_newest_error_in_order(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    db.store.create_job(&new_job("other", None)).await.expect("create");
    let first = claim(&db, "w1").await.expect("claimed").run;
    let save = |items| SavedRun { failed_items: items, ..SavedRun::default() };
    assert!(db.store.save(&first, &save(failures(3..6, "bad \u{0} byte"))).await.expect("save"));
    assert!(db.store.release_run(&first).await.expect("hand back"));
    assert!(!db.store.save(&first, &save(failures(0..1, "late"))).await.expect("save"), "its run is over");
    let second = claim(&db, "w2").await.expect("claimed").run;
    // Its last second is done again.
    assert!(db.store.save(&second, &save(failures(5..8, "worse"))).await.expect("save"));
    let rows = all(&db, "j").await;
    let told: Vec<(&str, i64)> = rows.iter().map(|r| (r.failed.item.as_str(), r.run)).collect();
    assert_eq!(told, [("row 3", 1), ("row 4", 1), ("row 5", 2), ("row 6", 2), ("row 7", 2)]);
    assert_eq!(rows[2].failed.error, "worse");
    assert!(rows[0].at.as_deref().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{rows:?}");
    let page = db.store.failed_items(&FailedItemFilter { job: job("j"), after: None, limit: 2 }).await.expect("read");
    assert_eq!((page.items, page.next.is_some()), (rows[..2].to_vec(), true));
    assert!(all(&db, "other").await.is_empty());
}

pub async fn no_more_than_ten_thousand_failed_items_of_a_job_are_kept(db: Db) {
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let run = claim(&db, "w").await.expect("claimed").run;
    let kept = MAX_FAILED_ITEMS;
    // The second batch begins with rows that are there already: they take no room.
    for range in [0..kept - 100, kept - 700..kept + 300, kept..kept + 50] {
        let account = SavedRun { failed_items: failures(range, "bad"), ..SavedRun::default() };
        assert!(db.store.save(&run, &account).await.expect("save"));
    }
    let rows = all(&db, "j").await;
    assert_eq!(rows.len(), kept);
    assert_eq!(rows[kept - 1].failed.item, format!("row {}", kept - 1));
}
