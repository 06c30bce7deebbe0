//! Watching and commanding in a browser: what an operator presses, reads, and must not fall for.

use super::page::{Page, row};
use crate::support::browser::Browser;
use crate::support::fleet::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_the_jobs_in_a_browser_presses_pause_and_reads_the_result() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    fleet.external_job("acme", "j2").await;
    let hostile = "<img src=x onerror=\"document.title='owned'\">";
    let name = sqlx::query("UPDATE jobs SET title = $1 WHERE id = 'j2'").bind(hostile);
    name.execute(&fleet.sql().await).await.expect("name the job");
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    page.row_says("j1", "Running").await;
    page.row_says("j2", hostile).await;
    assert_eq!(page.eval("document.querySelectorAll('.row img').length").await, 0);
    assert_eq!(page.eval("document.title.includes('owned')").await, false);
    let here = format!("http://{}/#/jobs", page.address);
    assert_eq!(page.eval("location.href").await, here, "the token is out of the address");

    page.press_in_row("j1", "Pause").await;
    page.row_says("j1", "Paused").await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
    page.until("the result is told", "document.getElementById('activity').textContent.includes('Paused by you')").await;
    page.press_in_row("j1", "Resume").await;
    page.row_says("j1", "Running").await;
    assert_eq!(fleet.status("acme", "j1").await, "running");
    assert_eq!(fleet.status("acme", "j2").await, "running", "nobody touched the other");

    // A cancel asks first, and for a reason.
    page.press_in_row("j1", "Cancel").await;
    page.row_says("j1", "its program goes on").await;
    page.until("the answer is taken", &format!(
        "(() => {{ const row = {}; row?.querySelector('.confirm input')?.focus(); const sure = row?.querySelector('.confirm:not([hidden]) .danger'); \
         sure?.click(); return row?.innerText.includes('Cancelled') ?? false; }})()", row("j1"))).await;
    assert_eq!(fleet.status("acme", "j1").await, "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_worker_everybody_sees_what_waits_and_a_gateways_death_meanwhile_changes_nothing() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.permit("ben", "jobs.read").await;
    fleet.external_job("acme", "j1").await;
    let at = format!("127.0.0.1:{}", crate::support::free_port());
    let gateway = fleet.gateway_at(&at);
    let worker = fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    page.row_says("j1", "Running").await;
    let header = "document.querySelector('header').innerText";
    let warning = "No worker is running: commands wait until one is back";
    let warns = format!("{header}.includes({warning:?})");
    assert_eq!(page.eval(&warns).await, false);
    fleet.kill(worker);
    page.until("the header warns", &warns).await;
    // What is sent now waits, and says for what.
    page.press_until_row_says("j1", "Pause", "No worker is online: the command waits").await;

    // Somebody who comes later, and may only look, sees it in the list, on the job's page, and among what waits.
    let waits = "Pause by ann waits for a worker: none is online";
    let mut other = Page::open(&fleet, gateway, "ben", "#/jobs").await;
    other.row_says("j1", waits).await;
    other.go("#/jobs/j1").await;
    other.says(waits).await;
    other.go("#/overview").await;
    other.says(waits).await;

    fleet.kill(gateway);
    page.until("the loss is noticed", "document.getElementById('connection').dataset.state === 'offline'").await;
    fleet.gateway_at(&at);
    other.says(waits).await;
    other.go("#/jobs").await;
    other.row_says("j1", waits).await;
    fleet.worker();
    page.until("the warning is gone", &format!("!{warns}")).await;
    page.row_says("j1", "Paused").await;
    other.row_says("j1", "Paused").await;
    other.until("nothing waits any more", &format!("!{}.innerText.includes('waits for a worker')", row("j1"))).await;
    let settled = "[...document.querySelectorAll('#activity li')].filter((line) => line.innerText.includes('Paused by you')).length";
    page.until("the pause has settled", &format!("{settled} > 0")).await;
    let history = "[...document.querySelectorAll('section table tbody tr')].map((row) => row.innerText)";
    page.go("#/jobs/j1").await;
    page.until("the pause is in the history", &format!("/Pause.*ann.*Done: paused/s.test({history}.join())")).await;
    assert_eq!(page.eval(&format!("{history}.length")).await, 1, "one command, however often it was sent");
    assert_eq!(page.eval(settled).await, 1, "and told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_looks_live_and_buttons_wait_for_a_connection() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    for id in ["j1", "j2"] {
        fleet.external_job("acme", id).await;
    }
    let at = format!("127.0.0.1:{}", crate::support::free_port());
    let gateway = fleet.gateway_at(&at);
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    page.row_says("j1", "Running").await;
    // Three questions are open as the connection goes: to cancel one, to pause many, and on another page, for later.
    page.press_in_row("j2", "Cancel").await;
    page.press("All that match…").await;
    let batch = "document.querySelector('dialog[open]')";
    page.until("the count is told", &format!("{batch}.innerText.includes('Pause 2 of 2.')")).await;
    let mut later = Page::open(&fleet, gateway, "ann", "#/jobs/j2").await;
    later.press("Later…").await;
    fleet.kill(gateway);
    for page in [&mut page, &mut later] {
        page.says("when the connection was lost. Buttons wait for it: nothing is sent until it is back.").await;
        let waits = "document.querySelector('dialog[open]').innerText.includes('Waits for a connection: nothing is sent until it is back')";
        page.until("the question says that it waits", waits).await;
        page.eval("document.querySelector('dialog[open] form').requestSubmit()").await;
        page.eval("document.querySelector('dialog[open] button.main').click()").await;
        page.eval("document.querySelector('dialog[open] button:not(.main)').click()").await;
    }
    page.row_says("j2", "Waits for a connection: nothing is sent until it is back").await;
    page.eval(&format!("{}.querySelector('.confirm').requestSubmit()", row("j2"))).await;
    page.row_says("j2", "Not sent: there is no connection").await;
    page.until(
        "the header says that nothing is live",
        "/^Not live/.test(document.getElementById('connection').innerText)",
    )
    .await;
    page.until("the list is shown as old", "document.querySelector('.rows').hasAttribute('data-stale')").await;
    let waits = format!(
        "(() => {{ const b = {}.querySelector('.pause'); return b.disabled && b.title.includes('nothing is sent until it is back'); }})()",
        row("j1")
    );
    page.until("its buttons wait and say so", &waits).await;
    page.go("#/jobs/j1").await;
    fleet.gateway_at(&at);
    page.until("the page is live", "document.getElementById('connection').innerText.trim() === 'Live'").await;
    page.until("nothing says that it is old", "document.getElementById('stale').hidden").await;
    page.press("Pause").await;
    page.says("Paused by you").await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
    // By now whatever had been kept to be sent would have been.
    later.until("the other page is live", "document.getElementById('connection').innerText.trim() === 'Live'").await;
    later.go("#/schedules").await;
    later.says("Nothing is scheduled").await;
    assert_eq!(fleet.status("acme", "j2").await, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_what_is_lacking() {
    let mut fleet = Fleet::new();
    fleet.set("LIMITS__COMMANDS_PER_MINUTE", "2");
    fleet.permit("ann", "*").await;
    fleet.permit("eve", "jobs.read").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let mut eve = Page::open(&fleet, gateway, "eve", "#/jobs").await;
    eve.row_says("j1", "Running").await;
    eve.press_in_row("j1", "Pause").await;
    eve.row_says("j1", "You may not pause jobs: it takes the permission jobs.pause").await;

    let mut ann = Page::open(&fleet, gateway, "ann", "#/jobs/j1").await;
    ann.press("Pause").await;
    ann.says("Paused by you").await;
    // The other operator sees it, too.
    eve.row_says("j1", "Paused").await;
    ann.press("Resume").await;
    ann.says("Resumed by you").await;
    ann.press("Pause").await;
    ann.until(
        "the header counts down",
        "document.getElementById('limit').innerText.includes('2 of 2 commands used: try again in')",
    )
    .await;
    assert_eq!(fleet.status("acme", "j1").await, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_parameters_and_results_are_shown_with_every_digit() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    // The text is no number, whatever it looks like, and keeps its quotes.
    let parameters = r#"{"whole":9007199254740993,"parts":[0.1234567890123456789012345678,"9007199254740993"]}"#;
    let result = "[0.1234567890123456789012345678,{\"whole\":-9007199254740993}]";
    let contents = sqlx::query("UPDATE jobs SET parameters = $1, result = $2 WHERE id = 'j1'");
    contents.bind(parameters).bind(result).execute(&fleet.sql().await).await.expect("fill the job");
    let gateway = fleet.gateway();
    let Page { mut browser, .. } = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    let opened =
        "(() => { const title = document.querySelector('.row a.title'); title?.click(); return Boolean(title); })()";
    browser.until("there is a row to open", opened).await;
    let usual = browser.eval("String(JSON.parse('9007199254740993'))").await;
    assert_eq!(usual, "9007199254740992", "what the page must not do");
    let block = |title: &str| format!("document.querySelector('pre[aria-label={title}]')");
    for (title, written) in [("Parameters", parameters), ("Result", result)] {
        let shown = format!("Boolean({0}?.innerText)", block(title));
        browser.until("the block is filled", &shown).await;
        let shown = browser.eval(&format!("{}.innerText", block(title))).await;
        let shown = shown.as_str().expect("text");
        // Only laid out in lines: none of these values has a blank of its own.
        assert_eq!(shown.split_whitespace().collect::<String>(), written, "{title}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_does_not_sign_in_another_user_without_asking() {
    let mut fleet = Fleet::new();
    for user in ["ann", "eve"] {
        fleet.permit(user, "*").await;
    }
    fleet.external_job("acme", "of-acme").await;
    fleet.external_job("globex", "of-globex").await;
    let gateway = fleet.gateway();
    let (ann, eve) = (fleet.token("ann", "acme"), fleet.token("eve", "globex"));
    let address = fleet.process(gateway).address.clone();
    let mut browser = Browser::open(&format!("http://{address}/#/jobs?token={ann}")).await;
    let lists = |id: &str| format!("Boolean(document.getElementById('content')?.innerText.includes('{id}'))");
    browser.until("ann's job is listed", &lists("of-acme")).await;

    // In the open page, and by loading the page anew.
    let asks = "document.getElementById('replace').open";
    let words = "document.getElementById('replace').innerText";
    for way in [format!("location.hash = '/jobs?token={eve}'"), format!("location.assign('/?again#/jobs?token={eve}')")]
    {
        browser.eval(&way).await;
        browser
            .until("the page asks", &format!("document.getElementById('replace')?.open && {}", lists("of-acme")))
            .await;
        assert!(browser.eval("location.href").await.as_str().is_some_and(|href| !href.contains("token")));
        let said = browser.eval(words).await;
        let said = said.as_str().expect("text");
        assert!(said.contains("ann in acme") && said.contains("eve in globex"), "{said}");
        let kept = browser.eval("sessionStorage.getItem('wheelhouse.token')").await;
        assert_eq!(kept, ann.as_str(), "nothing is replaced before the answer");
        browser.eval("document.querySelector('#replace button[value=stay]').click()").await;
        browser.until("the question is gone", &format!("!{asks}")).await;
        assert_eq!(browser.eval("sessionStorage.getItem('wheelhouse.token')").await, ann.as_str());
        assert_eq!(browser.eval(&lists("of-globex")).await, false);
    }
    // The link of the one who is signed in changes nothing, and asks nothing.
    browser.eval(&format!("location.hash = '/jobs?token={ann}'")).await;
    browser.until("the token is out of the address", "!location.href.includes('token')").await;
    assert_eq!(browser.eval(asks).await, false);
    // With a yes the page is the other's.
    browser.eval(&format!("location.hash = '/jobs?token={eve}'")).await;
    browser.until("the page asks", asks).await;
    browser.eval("document.getElementById('replace-do').click()").await;
    browser.until("the other's job is listed", &lists("of-globex")).await;
    assert_eq!(browser.eval(&lists("of-acme")).await, false);
    // Signed out, a link signs in as ever.
    browser.eval("document.getElementById('sign-out').click()").await;
    browser.eval(&format!("location.hash = '/jobs?token={ann}'")).await;
    browser.until("ann's job is listed again", &lists("of-acme")).await;
    assert_eq!(browser.eval(asks).await, false);
}
