//! Rows and lists, those of other systems too; permissions, migrations.

use wheelhouse::domain::TenantId;

use super::*;

pub async fn rows_of_other_systems_are_read_and_never_started(db: Db) {
    db.sql(
        "INSERT INTO jobs (id, tenant_id, job_type, title, status, progress_percent, parameters, created_at) \
            VALUES ('old', 'acme', 'work', 'A title', 'pending', 42.7, '{\"a\":[1]}', '2026-01-02 03:04:05')",
    )
    .await
    .expect("insert");
    let row = db.store.job(&job("old")).await.expect("read").expect("row");
    assert_eq!(row.progress.progress_percent, 42);
    assert_eq!(row.parameters, json!({"a": [1]}));
    assert_eq!(row.created_at.as_deref(), Some("2026-01-02T03:04:05Z"));
    assert!(claim(&db, "w").await.is_none(), "a job put there by another system must not be started");
    db.sql("INSERT INTO campaigns (id, tenant_id, name, status) VALUES ('c', 'acme', 'A campaign', 'active')")
        .await
        .expect("insert");
    let campaign = Resource::parse("acme:campaign:c").expect("resource");
    db.store.apply(&change(campaign.clone(), Action::Pause, 1)).await.expect("apply");
    let row = db.store.campaign(&campaign).await.expect("read").expect("row");
    assert_eq!((row.is_active, row.status), (false, CampaignStatus::Paused));
}

pub async fn odd_rows_are_read_or_left_out_and_hide_no_others(db: Db) {
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status, job_type, progress_percent, items_processed, parameters, max_retries, created_at)
           VALUES ('nulls', 'acme', 'running', NULL, NULL, NULL, NULL, NULL, NULL);
         INSERT INTO jobs (id, tenant_id, status, progress_percent) VALUES ('high', 'acme', 'running', 250);
         INSERT INTO jobs (id, tenant_id, status, progress_percent) VALUES ('low', 'acme', 'running', -3.5);
         INSERT INTO jobs (id, tenant_id, status) VALUES ('no:id', 'acme', 'running');
         INSERT INTO jobs (id, tenant_id, status, host) VALUES ('odd-host', 'acme', 'running', 'not a worker');
         INSERT INTO campaigns (id, tenant_id, is_active) VALUES ('off', 'acme', FALSE);
         INSERT INTO campaigns (id, tenant_id, name, is_active, status) VALUES ('on', 'acme', 'On', TRUE, 'paused');",
    )
    .await
    .expect("insert");
    if db.url.starts_with("sqlite") {
        db.sql("INSERT INTO jobs (id, tenant_id, parameters, result) VALUES ('text', 'acme', 'not json', '{')")
            .await
            .expect("insert");
        let row = db.store.job(&job("text")).await.expect("read").expect("row");
        assert_eq!((row.parameters, row.result), (exact(json!("not json")), exact(json!("{"))));
    }
    let nulls = db.store.job(&job("nulls")).await.expect("read").expect("row");
    assert_eq!((nulls.progress.progress_percent, nulls.parameters, nulls.created_at), (0, exact(json!(null)), None));
    assert_eq!(db.store.job(&job("high")).await.expect("read").expect("row").progress.progress_percent, 100);
    assert_eq!(db.store.job(&job("low")).await.expect("read").expect("row").progress.progress_percent, 0);
    let filter = JobFilter { status: vec![JobStatus::Running], limit: 100, ..JobFilter::of(job("j").tenant) };
    let listed = db.store.jobs(&filter).await.expect("list").items;
    assert_eq!(listed.iter().map(|j| j.id.as_str()).collect::<Vec<_>>(), ["odd-host", "low", "high", "nulls"]);
    assert!(db.store.hosted_runs().await.expect("runs").is_empty(), "a host that is no worker is nobody's run");
    assert!(matches!(db.store.apply(&change(job("odd-host"), Action::Pause, 1)).await, Err(StoreError::Refused(_))));
    assert!(db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('x', 'acme', 'resting')").await.is_err());
    // Campaigns whose two columns disagree are made one by the next command.
    for (id, action, active) in [("off", Action::Resume, true), ("on", Action::Pause, false)] {
        let applied = db.store.apply(&change(campaign(id), action, 1)).await.expect("apply");
        assert!(matches!(applied, ApplyOutcome::Succeeded { changed: true, .. }), "{id}: {applied:?}");
        let row = db.store.campaign(&campaign(id)).await.expect("read").expect("row");
        assert_eq!((row.is_active, row.status == CampaignStatus::Active), (active, active), "{id}");
    }
    // External work that ran goes on running when it is resumed, however it was paused.
    db.sql(
        "INSERT INTO jobs (id, tenant_id, status, started_at) VALUES ('ran', 'acme', 'paused', '2026-01-01 00:00:00')",
    )
    .await
    .expect("insert");
    db.store.apply(&change(job("ran"), Action::Resume, 1)).await.expect("apply");
    assert_eq!(status(&db, "ran").await, JobStatus::Running);
}

pub async fn the_character_nul_is_kept_out_of_the_way(db: Db) {
    let odd = json!({"a\u{0}": ["x\u{0}y", "C:\\u0000"]});
    db.store.create_job(&NewJob { parameters: exact(odd.clone()), ..new_job("j", None) }).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    let progress = Progress { current_item: Some("a\u{0}b".into()), ..Progress::default() };
    assert!(
        db.store
            .save(
                &taken.run,
                &SavedRun { progress: progress.clone(), resume_point: Some(exact(odd.clone())), ..SavedRun::default() }
            )
            .await
            .expect("save")
    );
    let ended = db.store.finish(&taken.run, &progress, &RunEnd::Completed(exact(odd))).await.expect("finish");
    let FinishOutcome::Done(row) = ended else { panic!("lost") };
    assert_eq!(row.result, json!({"a\u{fffd}": ["x\u{fffd}y", "C:\\u0000"]}));
}

pub async fn numbers_keep_every_digit(db: Db) {
    let text = "[9007199254740993,0.1234567890123456789012345678,123456789012345678901234567890,0.10]";
    let numbers: JsonText = text.parse().expect("JSON");
    db.store.create_job(&NewJob { parameters: numbers.clone(), ..new_job("j", None) }).await.expect("create");
    let taken = claim(&db, "w").await.expect("claimed");
    assert_eq!(taken.job.parameters.as_str(), text);
    let account = SavedRun { resume_point: Some(numbers.clone()), ..SavedRun::default() };
    assert!(db.store.save(&taken.run, &account).await.expect("save"));
    db.store.finish(&taken.run, &Progress::default(), &RunEnd::Completed(numbers)).await.expect("finish");
    let row = db.store.job(&job("j")).await.expect("read").expect("row");
    assert_eq!((row.parameters.as_str(), row.result.as_str()), (text, text));
    // PostgreSQL keeps the values, and has an order of its own and a way of its own to write them.
    let fields = r#"{"long":1e3,"a":[1E-2]}"#.parse().expect("JSON");
    db.store.create_job(&NewJob { parameters: fields, ..new_job("k", None) }).await.expect("create");
    let row = db.store.job(&job("k")).await.expect("read").expect("row");
    let kept = if db.url.starts_with("sqlite") { r#"{"long":1e3,"a":[1E-2]}"# } else { r#"{"a":[0.01],"long":1000}"# };
    assert_eq!(row.parameters.as_str(), kept);
}

pub async fn lists_are_paged_and_keep_to_the_tenant(db: Db) {
    for n in 0..5 {
        db.store.create_job(&new_job(&format!("j{n}"), None)).await.expect("create");
    }
    db.sql("INSERT INTO jobs (id, tenant_id) VALUES ('theirs', 'other')").await.expect("insert");
    let mut filter = JobFilter { limit: 2, ..JobFilter::of(job("j").tenant) };
    let mut seen = Vec::new();
    loop {
        let page = db.store.jobs(&filter).await.expect("list");
        seen.extend(page.items.iter().map(|j| j.id.to_string()));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["j4", "j3", "j2", "j1", "j0"]);
    filter.status = vec![JobStatus::Paused];
    assert!(db.store.jobs(&filter).await.expect("list").items.is_empty());
    let other = Resource::parse("other:job:j0").expect("resource");
    assert!(db.store.job(&other).await.expect("read").is_none());
}

pub async fn permissions_come_directly_and_by_role_with_a_version_that_plain_sql_raises(db: Db) {
    let user: UserId = "user-456".parse().expect("user");
    let before = db.store.permissions_of(&user, &job("j").tenant).await.expect("read");
    assert!(before.held.is_empty());
    db.sql("INSERT INTO user_permissions (user_id, permission) VALUES ('user-456', 'jobs.cancel')")
        .await
        .expect("insert");
    db.sql("INSERT INTO roles (id, name) VALUES ('op', 'Operator')").await.expect("insert");
    db.sql("INSERT INTO role_permissions (role_id, permission) VALUES ('op', 'campaigns.*')").await.expect("insert");
    db.sql("INSERT INTO user_roles (user_id, role_id) VALUES ('user-456', 'op')").await.expect("insert");
    let mut after = db.store.permissions_of(&user, &job("j").tenant).await.expect("read");
    after.held.sort();
    assert_eq!(after.held, ["campaigns.*", "jobs.cancel"]);
    assert!(after.version >= before.version + 3);
    assert_eq!(db.store.permission_version().await.expect("read"), after.version);
    let granted = db.store.grant(&user, &["jobs.read".to_owned(), "jobs.cancel".to_owned()]).await.expect("grant");
    assert!(granted > after.version);
    let revoked = db.store.revoke(&user, &["jobs.cancel".to_owned()]).await.expect("revoke");
    assert!(revoked > granted);
    db.sql("DELETE FROM user_roles").await.expect("delete");
    assert_eq!(db.store.permissions_of(&user, &job("j").tenant).await.expect("read").held, ["jobs.read"]);
}

pub async fn permissions_and_roles_may_be_for_one_tenant(db: Db) {
    let user: UserId = "ann".parse().expect("user");
    let [acme, globex]: [TenantId; 2] = ["acme", "globex"].map(|id| id.parse().expect("tenant"));
    let held = async |tenant: &TenantId| {
        let mut held = db.store.permissions_of(&user, tenant).await.expect("read").held;
        held.sort();
        held.join(" ")
    };
    let permissions = |all: &[&str]| all.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    db.store.grant(&user, &permissions(&["jobs.read"])).await.expect("grant");
    for _ in 0..2 {
        db.store.grant_in(Some(&acme), &user, &permissions(&["jobs.read", "jobs.cancel"])).await.expect("grant");
    }
    assert_eq!((held(&acme).await.as_str(), held(&globex).await.as_str()), ("jobs.cancel jobs.read", "jobs.read"));
    // By roles: given in one tenant, a role of one tenant, and one of acme's given in globex, which counts nowhere.
    for text in [
        "INSERT INTO roles (id, name) VALUES ('everywhere', 'A role')",
        "INSERT INTO roles (id, name, tenant_id) VALUES ('of_acme', 'A role', 'acme')",
        "INSERT INTO role_permissions (role_id, permission) VALUES ('everywhere', 'jobs.pause')",
        "INSERT INTO role_permissions (role_id, permission) VALUES ('of_acme', 'jobs.resume')",
        "INSERT INTO user_roles (user_id, role_id, tenant_id) VALUES ('ann', 'everywhere', 'globex')",
        "INSERT INTO user_roles (user_id, role_id) VALUES ('ann', 'of_acme')",
        "INSERT INTO user_roles (user_id, role_id, tenant_id) VALUES ('ann', 'of_acme', 'globex')",
    ] {
        db.sql(text).await.expect(text);
    }
    assert_eq!(held(&acme).await, "jobs.cancel jobs.read jobs.resume");
    assert_eq!(held(&globex).await, "jobs.pause jobs.read");
    let before = db.store.permission_version().await.expect("read");
    db.sql("UPDATE roles SET tenant_id = NULL").await.expect("update");
    assert!(db.store.permission_version().await.expect("read") > before, "a change of a role's tenant is noticed");
    assert_eq!(held(&globex).await, "jobs.pause jobs.read jobs.resume");
    assert_eq!(db.store.grants(Some(&user)).await.expect("grants").len(), 6);
    // What was granted in one tenant goes alone; without a tenant all of it goes.
    db.store.revoke_in(&acme, &user, &permissions(&["jobs.read", "jobs.cancel"])).await.expect("revoke");
    assert_eq!(held(&acme).await, "jobs.read jobs.resume");
    db.store.grant_in(Some(&acme), &user, &permissions(&["jobs.read"])).await.expect("grant");
    db.store.revoke(&user, &permissions(&["jobs.read"])).await.expect("revoke");
    assert_eq!(held(&acme).await, "jobs.resume");
}

pub async fn any_number_of_programs_may_migrate_at_once(db: Db) {
    for round in 0..4 {
        let folder = tempfile::tempdir().expect("folder");
        let url = if db.url.starts_with("sqlite") {
            format!("sqlite://{}", folder.path().join("new.db").display())
        } else {
            support::postgres::database().await
        };
        let programs = (0..6).map(|_| {
            let settings = config::Database { url: url.clone().into(), connections: 2 };
            tokio::spawn(async move { Store::open(&settings).await?.migrate().await })
        });
        let applied: usize = futures_util::future::join_all(programs)
            .await
            .into_iter()
            .map(|done| done.expect("task").expect("migrate"))
            .sum();
        assert_eq!(applied, migrations(), "round {round}: each migration is applied once");
    }
}

pub async fn ping_answers_and_says_what_is_missing(db: Db) {
    let within = Duration::from_secs(10);
    db.store.ping(within).await.expect("ping");
    if let Some(file) = db.url.strip_prefix("sqlite://") {
        std::fs::remove_file(file).expect("remove");
        assert!(matches!(db.store.ping(within).await, Err(StoreError::Unavailable(_))));
    }
}

fn all_jobs() -> JobFilter {
    JobFilter { limit: 100, ..JobFilter::of(job("j").tenant) }
}

pub async fn lists_leave_out_what_a_job_holds_and_cut_down_what_is_long(db: Db) {
    let long = |what: &str| format!("begin{}end", what.repeat(30_000));
    db.store
        .create_job(&NewJob { parameters: exact(json!({"a": long("p")})), ..new_job("j", None) })
        .await
        .expect("create");
    let text = format!(
        "UPDATE jobs SET result = '\"x\"', title = '{}', current_item = '{}', error_message = '{}', job_type = '{}'",
        long("t"),
        long("ü"),
        long("e"),
        long("k")
    );
    db.sql(&text).await.expect("update");
    let listed = db.store.jobs(&all_jobs()).await.expect("list").items.remove(0);
    assert_eq!((&listed.parameters, &listed.result), (&exact(json!(null)), &exact(json!(null))));
    let whole = db.store.job(&job("j")).await.expect("read").expect("row");
    assert_eq!((&whole.parameters, &whole.result), (&exact(json!({"a": long("p")})), &exact(json!("x"))));
    for row in [listed, whole] {
        for (text, longest) in [
            (row.title.expect("title"), 500),
            (row.progress.current_item.expect("item"), 500),
            (row.error_message.expect("error"), 4_000),
            (row.job_type, 500),
        ] {
            assert!(text.starts_with("begin") && text.ends_with("end"), "{text}");
            assert!(text.contains("characters left out") && text.chars().count() <= longest, "{}", text.len());
        }
    }
    assert_eq!(db.store.job_error(&job("j")).await.expect("read"), Some(Some(long("e"))));
    assert_eq!(db.store.job_error(&job("none")).await.expect("read"), None);
}

pub async fn a_page_with_contents_ends_before_they_are_too_many_bytes(db: Db) {
    for n in 0..5 {
        let parameters = exact(json!("x".repeat(1_000)));
        db.store.create_job(&NewJob { parameters, ..new_job(&format!("j{n}"), None) }).await.expect("create");
    }
    let (mut filter, mut pages) = (all_jobs(), Vec::new());
    loop {
        let page = db.store.jobs_with_contents(&filter, 2_500).await.expect("list");
        assert!(page.items.iter().all(|job| job.parameters == json!("x".repeat(1_000))));
        pages.push(page.items.iter().map(|job| job.id.to_string()).collect::<Vec<_>>());
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec!["j4", "j3"], vec!["j2", "j1"], vec!["j0"]]);
    let one = db.store.jobs_with_contents(&all_jobs(), 10).await.expect("list");
    assert_eq!((one.items.len(), one.next.is_some()), (1, true), "one at least, however long");
    let short = JobFilter { limit: 2, ..all_jobs() };
    assert_eq!(db.store.jobs_with_contents(&short, 1_000_000).await.expect("list").items.len(), 2);
}
