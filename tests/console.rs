//! The operator's page as a browser gets it: what is served, with which headers, and that the files fit together.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use warp::Filter;
use wheelhouse::console;

use support::browser::Browser;
use support::fleet::Fleet;

/// A server with the console and one route of somebody else's behind it.
struct Served {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Served {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let routes = console::routes().or(warp::path!("api" / "v1" / "me").map(|| "somebody else's"));
        let task = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self { address, task }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "wheelhouse.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("request");
        let response = sender.send_request(request).await.expect("answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        connection.abort();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).expect("UTF-8") }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().expect("text")).unwrap_or_default()
    }
}

/// The value after each of `marks` up to the quote that opened it: `href="…"`, `from "…"`.
fn quoted_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.split(mark).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn every_file_is_served_with_its_type_and_the_headers_that_protect_it() {
    let served = Served::start().await;
    for asset in console::ASSETS {
        let answer = served.get(asset.path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", asset.path);
        assert_eq!(answer.body, asset.body, "{}", asset.path);
        let expected = match asset.path.rsplit_once('.').map(|(_, end)| end) {
            None => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(other) => panic!("what is a .{other}?"),
        };
        assert_eq!(answer.header("content-type"), expected, "{}", asset.path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-cache");
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.split(';').any(|directive| directive.trim() == part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!policy.contains('*') && !policy.contains("http"), "{policy}");
    }
}

#[tokio::test]
async fn what_a_browser_has_already_is_not_sent_again_until_it_changes() {
    let served = Served::start().await;
    let mut tags = BTreeSet::new();
    for asset in console::ASSETS {
        let tag = served.get(asset.path).await.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"old\", {tag}"), "*".to_owned()] {
            let again = served.ask(Method::GET, asset.path, &[("if-none-match", &known)]).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{} {known}", asset.path);
            assert_eq!(again.body, "");
            assert_eq!(again.header("etag"), tag);
        }
        let changed = served.ask(Method::GET, asset.path, &[("if-none-match", "\"old\"")]).await;
        assert_eq!(changed.status, StatusCode::OK);
        tags.insert(tag);
    }
    assert_eq!(tags.len(), console::ASSETS.len(), "each file has a tag of its own");
}

#[tokio::test]
async fn an_address_with_a_token_is_kept_by_nobody() {
    let served = Served::start().await;
    let tag = served.get("/").await.header("etag").to_owned();
    let answer = served.ask(Method::GET, "/?token=a.b.c", &[("if-none-match", &tag)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("etag"), "");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(!answer.body.contains("a.b.c"), "nothing of the query stands in the page");
}

#[tokio::test]
async fn other_methods_and_files_are_refused_in_words_and_other_paths_are_passed_on() {
    let served = Served::start().await;
    let head = served.ask(Method::HEAD, "/", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
    for path in ["/", "/assets/main.js"] {
        let post = served.ask(Method::POST, path, &[]).await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(post.header("allow"), "GET, HEAD");
    }
    for path in ["/assets/", "/assets/none.js", "/assets/../main.js", "/assets/..%2fmod.rs", "/assets//main.js"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    assert_eq!(served.get("/api/v1/me").await.body, "somebody else's");
    assert_eq!(served.get("/index.html").await.status, StatusCode::NOT_FOUND);
}

#[test]
fn every_file_in_the_folder_is_served_and_every_file_referred_to_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/assets");
    let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("assets")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .map(|name| if name == "index.html" { "/".to_owned() } else { format!("/assets/{name}") })
        .collect();
    let served: BTreeMap<&str, &str> = console::ASSETS.iter().map(|asset| (asset.path, asset.body)).collect();
    assert_eq!(on_disk.iter().map(String::as_str).collect::<Vec<_>>(), served.keys().copied().collect::<Vec<_>>());

    let mut reached = BTreeSet::from(["/"]);
    for (path, body) in &served {
        let mut references: Vec<String> = Vec::new();
        for mark in ["href=\"", "src=\""] {
            references.extend(quoted_after(body, mark).into_iter().filter(|r| !r.starts_with('#')).map(str::to_owned));
        }
        for line in body.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from ")) {
            let module = quoted_after(line, "from \"");
            assert_eq!(module.len(), 1, "{path}: {line}");
            let name = module[0].strip_prefix("./").unwrap_or_else(|| panic!("{path} imports {}", module[0]));
            references.push(format!("/assets/{name}"));
        }
        for reference in references {
            let (known, _) = served.get_key_value(reference.as_str()).unwrap_or_else(|| panic!("{path}: {reference}"));
            reached.insert(known);
        }
    }
    let unreached: Vec<_> = served.keys().filter(|path| !reached.contains(*path)).collect();
    assert!(unreached.is_empty(), "nothing refers to {unreached:?}");
}

#[test]
fn every_name_that_a_module_imports_is_exported_by_the_other() {
    let modules: BTreeMap<&str, &str> =
        console::ASSETS.iter().filter(|a| a.path.ends_with(".js")).map(|a| (a.path, a.body)).collect();
    let mut checked = 0;
    for (path, body) in &modules {
        for line in body.lines().filter(|line| line.starts_with("import {")) {
            let names = line.split(['{', '}']).nth(1).expect("names");
            let from = format!("/assets/{}", quoted_after(line, "from \"./")[0]);
            for name in names.split(',').map(str::trim) {
                let exported = ["const", "function", "class", "async function"].iter().any(|kind| {
                    modules[from.as_str()].lines().any(|l| {
                        l.strip_prefix("export ").and_then(|l| l.strip_prefix(kind)).is_some_and(|rest| {
                            let rest = rest.trim_start();
                            rest.strip_prefix(name)
                                .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                        })
                    })
                });
                assert!(exported, "{path} imports {name}, which {from} does not export");
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "only {checked} names found: does the reading of imports still fit?");
}

#[test]
fn nothing_is_inline_nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
    for asset in console::ASSETS {
        let (path, body) = (asset.path, asset.body);
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!body.contains(forbidden), "{path} has {forbidden}");
        }
        // The one address that is a name and not a place.
        let outside = body.replace("http://www.w3.org/2000/svg", "");
        for scheme in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!outside.contains(scheme), "{path} has {scheme}");
        }
        for keeper in ["localStorage", "document.cookie", "console.log"] {
            assert!(!body.contains(keeper), "{path}: a token could end up in {keeper}");
        }
        if path != "/" {
            continue;
        }
        for script in body.split("<script").skip(1) {
            let (tag, rest) = script.split_once('>').expect("a whole tag");
            assert!(tag.contains("src=\"/assets/"), "inline script: <script{tag}>");
            assert!(rest.starts_with("</script>"), "a script with src has no text of its own");
        }
        assert!(!body.contains("<style") && !body.contains(" style="), "the policy forbids inline styles");
        for attribute in body.split_whitespace().filter(|word| word.contains('=')) {
            assert!(!attribute.starts_with("on"), "inline handler: {attribute}");
        }
    }
}

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
    let token = fleet.token("ann", "acme");
    let address = fleet.process(gateway).address.clone();
    let mut browser = Browser::open(&format!("http://{address}/?token={token}")).await;

    let row =
        |id: &str| format!("[...document.querySelectorAll('.row')].find((row) => row.innerText.includes('{id}'))");
    let says = |id: &str, text: &str| format!("Boolean({}?.innerText.includes({text:?}))", row(id));
    let press = |id: &str, button: &str| {
        format!(
            "(() => {{ const button = [...({}?.querySelectorAll('button') ?? [])].find((b) => b.innerText === '{button}' \
             && !b.disabled); button?.click(); return Boolean(button); }})()",
            row(id)
        )
    };
    browser.until("the job is listed as running", &says("j1", "Running")).await;
    browser.until("a hostile title is only text", &says("j2", hostile)).await;
    assert_eq!(browser.eval("document.querySelectorAll('.row img').length").await, 0);
    assert_eq!(browser.eval("document.title.includes('owned')").await, false);
    assert_eq!(browser.eval("location.href").await, format!("http://{address}/"), "the token is out of the address");
    browser.until("every row is live", "document.getElementById('connection').innerText.trim() === 'Live'").await;

    browser.until("there is a button to pause", &press("j1", "Pause")).await;
    browser.until("it is paused", &says("j1", "Paused")).await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
    let activity = "document.getElementById('activity').innerText";
    browser.until("the result is told", &format!("{activity}.includes('Paused')")).await;

    browser.until("there is a button to resume", &press("j1", "Resume")).await;
    browser.until("it runs again", &says("j1", "Running")).await;
    assert_eq!(fleet.status("acme", "j1").await, "running");
    assert_eq!(fleet.status("acme", "j2").await, "running", "nobody touched the other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_warns_while_no_worker_is_running() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    let worker = fleet.worker();
    let token = fleet.token("ann", "acme");
    let address = fleet.process(gateway).address.clone();
    let mut browser = Browser::open(&format!("http://{address}/?token={token}")).await;
    // First what can be asked of a page that is still being loaded.
    browser.until("the job is listed", "document.querySelectorAll('#jobs .row').length === 1").await;
    browser.until("every row is live", "document.getElementById('connection').innerText.trim() === 'Live'").await;
    let header = "document.querySelector('header').innerText";
    let warning = "No worker is running: commands wait until one is back";
    let warns = format!("{header}.includes({warning:?})");
    assert_eq!(browser.eval(&warns).await, false);
    fleet.kill(worker);
    browser.until("the header warns", &warns).await;
    fleet.worker();
    browser.until("the warning is gone", &format!("!{warns}")).await;
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
    let token = fleet.token("ann", "acme");
    let address = fleet.process(gateway).address.clone();
    let mut browser = Browser::open(&format!("http://{address}/?token={token}")).await;
    let opened = "(() => { const title = document.querySelector('#jobs .row button.title'); title?.click(); \
                  return Boolean(title); })()";
    browser.until("there is a row to open", opened).await;
    let usual = browser.eval("String(JSON.parse('9007199254740993'))").await;
    assert_eq!(usual, "9007199254740992", "what the page must not do");
    let block = |title: &str| format!("document.querySelector('#jobs .row pre[aria-label={title}]')");
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
    let mut browser = Browser::open(&format!("http://{address}/#token={ann}")).await;
    let lists = |id: &str| format!("Boolean(document.getElementById('jobs')?.innerText.includes('{id}'))");
    browser.until("ann's job is listed", &lists("of-acme")).await;

    // In the open page, and by loading the page anew.
    let asks = "document.getElementById('replace').open";
    let words = "document.getElementById('replace').innerText";
    for way in [format!("location.hash = 'token={eve}'"), format!("location.assign('/?again#token={eve}')")] {
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
    browser.eval(&format!("location.hash = 'token={ann}'")).await;
    browser.until("the token is out of the address", "!location.href.includes('token')").await;
    assert_eq!(browser.eval(asks).await, false);
    // With a yes the page is the other's.
    browser.eval(&format!("location.hash = 'token={eve}'")).await;
    browser.until("the page asks", asks).await;
    browser.eval("document.getElementById('replace-do').click()").await;
    browser.until("the other's job is listed", &lists("of-globex")).await;
    assert_eq!(browser.eval(&lists("of-acme")).await, false);
    // Signed out, a link signs in as ever.
    browser.eval("document.getElementById('sign-out').click()").await;
    browser.eval(&format!("location.hash = 'token={ann}'")).await;
    browser.until("ann's job is listed again", &lists("of-acme")).await;
    assert_eq!(browser.eval(asks).await, false);
}
