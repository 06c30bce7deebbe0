//! Which of many resources are there, and which fit.

use wheelhouse::domain::{ResourceId, ResourceKind};

use super::*;

async fn rows(db: &Db) {
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status, campaign_id, job_type) VALUES
           ('a', 'acme', 'running', 'c1', 'import'), ('b', 'acme', 'pending', 'c1', 'mail'),
           ('c', 'acme', 'paused', NULL, 'mail'), ('d', 'acme', 'completed', 'c1', 'mail'),
           ('e', 'acme', 'running', 'c2', NULL), ('no:id', 'acme', 'running', 'c1', 'mail');
         INSERT INTO jobs (id, tenant_id, status, campaign_id, job_type) VALUES ('a', 'globex', 'running', 'c1', 'mail');
         INSERT INTO campaigns (id, tenant_id, status) VALUES
           ('c1', 'acme', 'active'), ('c2', 'acme', 'paused'), ('c3', 'acme', 'cancelled')",
    )
    .await
    .expect("insert");
}

fn ids(words: &[&str]) -> Vec<ResourceId> {
    words.iter().map(|word| word.parse().expect("id")).collect()
}

pub async fn names_of_many_are_found_in_one_question(db: Db) {
    rows(&db).await;
    let long = "é".repeat(5_000);
    db.sql(&format!("UPDATE jobs SET title = '{long}' WHERE id = 'b'")).await.expect("a long title");
    db.sql("UPDATE jobs SET title = 'Anna''s' WHERE id = 'a'; UPDATE campaigns SET name = 'Spring' WHERE id = 'c1'")
        .await
        .expect("titles");
    let acme = "acme".parse().expect("tenant");
    let names = async |kind, asked: &[&str]| {
        let mut found = db.store.names(&acme, kind, &ids(asked)).await.expect("read");
        found.sort();
        found
    };
    let jobs = names(ResourceKind::Job, &["a", "b", "c", "z"]).await;
    assert_eq!(jobs.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a", "b"], "without those that have none");
    assert_eq!(jobs[0].1, "Anna's");
    assert!(jobs[1].1.len() < 5_000 && jobs[1].1.contains("characters left out"), "{}", jobs[1].1);
    assert_eq!(names(ResourceKind::Campaign, &["c1", "a"]).await, [(ids(&["c1"])[0].clone(), "Spring".to_owned())]);
}

pub async fn those_of_many_that_are_there_are_found_in_one_question(db: Db) {
    rows(&db).await;
    let (acme, globex) = ("acme".parse().expect("tenant"), "globex".parse().expect("tenant"));
    let mut asked = ids(&["a", "z", "d"]);
    asked.extend((0..2_500).map(|n| format!("none{n}").parse::<ResourceId>().expect("id")));
    asked.extend(ids(&["e"]));
    let found = db.store.existing(&acme, ResourceKind::Job, &asked).await.expect("read");
    assert_eq!(found, ids(&["a", "d", "e"]).into_iter().collect());
    let found = db.store.existing(&globex, ResourceKind::Job, &asked).await.expect("read");
    assert_eq!(found, ids(&["a"]).into_iter().collect());
    let found = db.store.existing(&acme, ResourceKind::Campaign, &ids(&["c3", "a"])).await.expect("read");
    assert_eq!(found, ids(&["c3"]).into_iter().collect());
    assert!(db.store.existing(&acme, ResourceKind::Job, &[]).await.expect("read").is_empty());
    let facts = db.store.job_facts(&acme, &ids(&["a", "c", "e", "z"])).await.expect("read");
    let of = |id: &str| facts.get(&id.parse().expect("id")).map(|f| (f.campaign_id.clone(), f.job_type.as_str()));
    assert_eq!(of("a"), Some((Some("c1".parse().expect("id")), "import")));
    assert_eq!(of("c"), Some((None, "mail")));
    assert_eq!(of("e"), Some((Some("c2".parse().expect("id")), "")));
    assert_eq!(of("z"), None);
}

pub async fn a_filter_takes_the_newest_that_have_not_ended(db: Db) {
    rows(&db).await;
    let all = ResourceSelection {
        tenant: "acme".parse().expect("tenant"),
        kind: ResourceKind::Job,
        status: Vec::new(),
        campaign: None,
        job_type: None,
    };
    let chosen =
        async |chosen: ResourceSelection, limit: usize| db.store.select_matching(&chosen, limit).await.expect("read");
    assert_eq!(chosen(all.clone(), 100).await, ids(&["e", "c", "b", "a"]));
    assert_eq!(
        chosen(ResourceSelection { status: vec!["running", "paused"], ..all.clone() }, 100).await,
        ids(&["e", "c", "a"])
    );
    assert_eq!(
        chosen(ResourceSelection { campaign: Some("c1".parse().expect("id")), ..all.clone() }, 100).await,
        ids(&["b", "a"])
    );
    let one = ResourceSelection { job_type: Some("mail".to_owned()), status: vec!["pending"], ..all.clone() };
    assert_eq!(chosen(one, 100).await, ids(&["b"]));
    assert_eq!(chosen(all.clone(), 1).await.len(), 0, "the newest row has an id that is none");
    assert_eq!(chosen(all.clone(), 3).await, ids(&["e", "c"]));
    let campaigns = ResourceSelection { kind: ResourceKind::Campaign, ..all };
    assert_eq!(chosen(campaigns.clone(), 100).await, ids(&["c2", "c1"]));
    assert_eq!(chosen(ResourceSelection { status: vec!["active"], ..campaigns }, 100).await, ids(&["c1"]));
}
