//! Status messages that are owed.

use super::*;

pub async fn what_a_row_says_that_nobody_was_told_is_owed_until_it_is_said(db: Db) {
    let resource = campaign_of(&db, "c", 3).await;
    let owed = async || -> Vec<(Announcement, i64)> {
        let mut owed = db.store.announcements(100).await.expect("read");
        owed.sort_by_key(|(owed, _)| format!("{owed:?}"));
        owed
    };
    let about = |resource: &Resource, about, run| Announcement { resource: resource.clone(), about, run };
    assert_eq!(owed().await, []);
    // The end of a run.
    let taken = claim(&db, "w").await.expect("claimed");
    let done = RunEnd::Completed(exact(json!(null)));
    db.store.finish(&taken.run, &Progress::default(), &done).await.expect("finish");
    let ended = about(&taken.run.job, AnnouncementKind::Status, 1);
    assert_eq!(owed().await, [(ended.clone(), 0)]);
    db.store.mark_announced(std::slice::from_ref(&ended)).await.expect("cross off");
    assert_eq!(owed().await, []);
    // A cancelled campaign: one row, however many jobs it has.
    db.store.apply(&change(resource.clone(), Action::Cancel, 1)).await.expect("apply");
    let jobs = about(&resource, AnnouncementKind::Jobs, 0);
    assert_eq!(owed().await, [(jobs.clone(), 0)]);
    let (first, at) = db.store.cancelled_jobs(&resource, 0, 1).await.expect("read");
    let at = at.expect("one more");
    db.store.mark_announced_to(&jobs, at).await.expect("write");
    assert_eq!(db.store.announced_count(&jobs).await.expect("read"), Some(at));
    let (second, _) = db.store.cancelled_jobs(&resource, at, 10).await.expect("read");
    assert_eq!((first, second), (vec![job("c-1")], vec![job("c-2")]));
    db.store.mark_announced(std::slice::from_ref(&jobs)).await.expect("cross off");
    assert_eq!(db.store.announced_count(&jobs).await.expect("read"), None);
    // A dead worker's job.
    db.store.create_job(&new_job("j", None)).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    db.store.release_dead_run(&taken.run, "died", 5).await.expect("release").expect("it was its");
    assert_eq!(owed().await, [(about(&job("j"), AnnouncementKind::Status, 1), 0)]);
}
