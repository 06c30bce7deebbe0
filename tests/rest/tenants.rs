//! Two tenants: every path of the OpenAPI document and every message of the sockets, with the ids of another tenant, is
//! answered as with ids that nobody has. The paths, their parameters and their bodies are read from the document and the
//! messages from `schema/messages.schema.json`, so a new one is tried too, or stops the test.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use wheelhouse::broker::scripts::claim::ClaimOutcome;
use wheelhouse::domain::{Control, Resource, WorkerId};
use wheelhouse::protocol::{CommandError, Outcome};

use crate::support::api::{Reply, RestFixture};
use crate::support::schema::MESSAGES;
use crate::support::socket::Socket;
use crate::support::tokens::token_with;

/// What may be named: of a tenant, or of nobody.
struct Names {
    job: String,
    campaign: String,
    command: String,
    schedule: String,
    /// A `jti`, a user, a type of job, a title: anything else that is a text.
    word: String,
}

impl Names {
    /// What stands for a parameter or field of this name; `None`: nothing that belongs to anybody.
    fn named(&self, name: &str) -> Option<Value> {
        Some(match name {
            "job_id" | "resource" => json!(self.job),
            "job_ids" => json!([self.job]),
            "campaign_id" => json!(self.campaign),
            "campaign_ids" => json!([self.campaign]),
            "command_id" => json!(self.command),
            "schedule_id" => json!(self.schedule),
            "user" | "user_id" | "jti" => json!(self.word),
            _ => return None,
        })
    }

    /// The answer with these names as those of anybody, and without what differs from request to request.
    fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, mask) in [
            (&self.job, "JOB"),
            (&self.campaign, "CAMPAIGN"),
            (&self.command, "COMMAND"),
            (&self.schedule, "SCHEDULE"),
            (&self.word, "WORD"),
        ] {
            text = text.replace(name.as_str(), mask);
        }
        // Ids that were made for the answer, and times.
        let mut out = String::new();
        for part in text.split_inclusive(['"', ',', '}']) {
            let word = part.trim_end_matches(['"', ',', '}']);
            let is_time = word.starts_with("20") && word.contains('T') && word.contains(':');
            if is_time || word.parse::<uuid::Uuid>().is_ok() || word.starts_with(":17") || word.starts_with(":18") {
                out.push_str("MADE");
                out.push_str(&part[word.len()..]);
            } else {
                out.push_str(part);
            }
        }
        out
    }
}

/// The value of a `$ref`, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).expect("what is referred to"),
        None => value,
    }
}

/// Bodies that fit a schema: each of its choices with what it requires, and everything that can name something.
fn bodies(document: &Value, schema: &Value, names: &Names) -> Vec<Value> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array())
        && schema["properties"].is_null()
    {
        return choices.iter().flat_map(|choice| bodies(document, choice, names)).collect();
    }
    match schema["type"].as_str() {
        Some("array") => bodies(document, &schema["items"], names).into_iter().map(|one| json!([one])).collect(),
        Some("object") => {
            let no_fields = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&no_fields);
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut least = vec![Map::new()];
            for name in &required {
                let values = match names.named(name) {
                    Some(value) => vec![value],
                    None => bodies(document, &properties[*name], names),
                };
                least = least
                    .iter()
                    .flat_map(|body| {
                        values.iter().map(move |value| {
                            let mut body = body.clone();
                            body.insert((*name).to_owned(), value.clone());
                            body
                        })
                    })
                    .collect();
            }
            let naming = properties.keys().filter_map(|name| Some((name.clone(), names.named(name)?)));
            let naming: Vec<(String, Value)> = naming.filter(|(name, _)| !required.contains(&name.as_str())).collect();
            let with = |(name, value): &(String, Value)| {
                least
                    .iter()
                    .map(|body| {
                        let mut body = body.clone();
                        body.insert(name.clone(), value.clone());
                        Value::Object(body)
                    })
                    .collect::<Vec<_>>()
            };
            least.iter().cloned().map(Value::Object).chain(naming.iter().flat_map(with)).collect()
        }
        Some("string") => vec![json!(names.word)],
        Some("integer" | "number") => vec![json!(1)],
        Some("boolean") => vec![json!(true)],
        _ => match schema["enum"].as_array() {
            Some(choices) => choices.clone(),
            None => panic!("no body can be made for {schema}: say here how"),
        },
    }
}

/// Every request that the document allows, with these names.
fn requests(document: &Value, names: &Names) -> Vec<(String, String, Option<Value>)> {
    let mut all = Vec::new();
    for (pattern, item) in document["paths"].as_object().expect("paths") {
        let mut path = pattern.clone();
        while let Some(start) = path.find('{') {
            let end = start + path[start..].find('}').expect("the end of a parameter");
            let name = path[start + 1..end].to_owned();
            let value = names.named(&name).unwrap_or_else(|| panic!("{pattern}: say here what {name:?} names"));
            path.replace_range(start..=end, value.as_str().expect("a text"));
        }
        for (method, operation) in item.as_object().expect("an item").iter().filter(|(name, _)| *name != "parameters") {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters =
                parameters.map(|parameter| resolved(document, parameter)["name"].as_str().expect("a name"));
            let queries = parameters.filter_map(|name| {
                let value = names.named(name)?;
                Some(format!("{path}?{name}={}", value.as_str().expect("a text")))
            });
            let addresses = std::iter::once(path.clone()).chain(queries);
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            for address in addresses {
                let method = method.to_ascii_uppercase();
                if schema.is_null() {
                    all.push((method, address, None));
                } else {
                    let bodies = bodies(document, schema, names).into_iter();
                    all.extend(bodies.map(|body| (method.clone(), address.clone(), Some(body))));
                }
            }
        }
    }
    all
}

async fn ask(api: &RestFixture, token: &str, (method, path, body): &(String, String, Option<Value>)) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = body.as_ref().map(ToString::to_string).unwrap_or_default();
    api.send(method, path, &headers, body).await
}

/// A tenant with one of everything that can be named; who owns it, and the names.
async fn tenant_with_everything(api: &RestFixture) -> (String, Names) {
    let owner = api.user("owner", "acme", &["*"]).await;
    let post = async |path: &str, body: Value, status: u16| api.post(&owner, path, &body).await.expect(status);
    post("/api/v1/campaigns", json!({"id": "acmes-campaign"}), 201).await;
    let job =
        json!({"id": "acmes-job", "job_type": "acmes-word", "title": "acmes-word", "campaign_id": "acmes-campaign"});
    post("/api/v1/jobs", job, 201).await;
    let scheduled = post("/api/v1/jobs/acmes-job/cancel", json!({"delay_seconds": 3_600}), 202).await;
    let command = post("/api/v1/jobs/acmes-job/pause", json!({"reason": "acmes-word"}), 202).await;
    post("/api/v1/campaigns/acmes-campaign/pause", json!({}), 202).await;
    // A worker says that it failed for good, so that it stands in that list too.
    let resource = Resource::parse("acme:job:acmes-job").expect("resource");
    let worker: WorkerId = "w1".parse().expect("worker");
    let ClaimOutcome::Command(claim) =
        api.broker.claim(&resource, &worker, Duration::from_secs(30)).await.expect("claim")
    else {
        panic!("the command cannot be claimed");
    };
    let failed = Outcome::Failed(CommandError::ControlFailed { reason: "acmes-word".to_owned() });
    api.broker.complete(&claim, &worker, &failed, Some(Control::Row), None).await.expect("complete");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names = Names {
        job: "acmes-job".to_owned(),
        campaign: "acmes-campaign".to_owned(),
        command: text(&command["command_id"]),
        schedule: text(&scheduled["schedule_id"]),
        word: "acmes-word".to_owned(),
    };
    (owner, names)
}

fn nobodys() -> Names {
    Names {
        job: "nobodys-job".to_owned(),
        campaign: "nobodys-campaign".to_owned(),
        command: "01a22353-a34f-760b-9e0f-c6c0100e8026".to_owned(),
        schedule: "01a22353-a34f-760b-9e0f-c6c0100e8027".to_owned(),
        word: "nobodys-word".to_owned(),
    }
}

/// What the owner sees of the tenant.
async fn state(api: &RestFixture, owner: &str, names: &Names) -> Vec<String> {
    let mut seen = Vec::new();
    for path in [
        format!("/api/v1/jobs/{}", names.job),
        format!("/api/v1/campaigns/{}", names.campaign),
        "/api/v1/jobs?fields=status".to_owned(),
        "/api/v1/campaigns".to_owned(),
        "/api/v1/schedules".to_owned(),
        "/api/v1/queue/failed".to_owned(),
    ] {
        let reply = api.get(owner, &path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        seen.push(reply.text);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_answers_of_another_tenants_things_as_of_nobodys() {
    let api = RestFixture::start(&[("limits.commands_per_minute", "100000")]).await;
    let (owner, theirs) = tenant_with_everything(&api).await;
    let nobodys = nobodys();
    // Two strangers, so that what the one makes is not there for the other.
    for user in ["eve", "mallory"] {
        api.grant(user, &["*"]).await;
    }
    let eve = token_with("eve", "globex", &json!({}));
    let mallory = token_with("mallory", "initech", &json!({}));
    let document = api.send("GET", "/api/v1/openapi.json", &[], "").await.expect(200);
    let before = state(&api, &owner, &theirs).await;
    let (asked, control) = (requests(&document, &theirs), requests(&document, &nobodys));
    assert_eq!(asked.len(), control.len());
    assert!(asked.len() > 50, "{} requests are too few to be all", asked.len());
    for (request, other) in asked.iter().zip(&control) {
        let (method, path, body) = request;
        if matches!(path.as_str(), "/metrics" | "/readyz" | "/api/v1/openapi.json" | "/api/v1/me") {
            continue; // They name nothing of anybody; the last names the caller.
        }
        let reply = ask(&api, &eve, request).await;
        let same = ask(&api, &mallory, other).await;
        let about = format!("{method} {path} {body:?}");
        assert_eq!(reply.status, same.status, "{about}: {reply:?} and of nobody's: {same:?}");
        let (a, b) = (theirs.masked(&reply.text), nobodys.masked(&same.text));
        assert_eq!(a.replace("globex", "initech").replace("eve", "mallory"), b, "{about}");
        assert!(!reply.text.contains("\"acme\"") && !reply.text.contains("owner"), "{about}: {reply:?}");
        let is_named =
            [&theirs.job, &theirs.campaign, &theirs.command, &theirs.schedule].iter().any(|name| path.contains(*name));
        if is_named && !path.contains('?') && !path.starts_with("/api/v1/realtime") {
            assert_eq!(reply.status, 404, "{about}: {reply:?}");
        }
    }
    assert_eq!(state(&api, &owner, &theirs).await, before, "somebody else changed the tenant");
}

/// The types that a socket takes, by its own words.
fn types(refusal: &Value) -> BTreeSet<String> {
    let words = refusal["message"].as_str().expect("a message");
    assert!(words.starts_with("Unknown type; this socket takes "), "{words}");
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    let all = words.split(|c| !is_word(c)).filter(|word| word.contains('_') || matches!(*word, "ping" | "subscribe"));
    let fields = ["job_ids", "job_id", "campaign_ids", "campaign_id"];
    let mut types: BTreeSet<String> = all.filter(|word| !fields.contains(word)).map(str::to_owned).collect();
    // "the same of campaigns".
    if words.contains("the same of campaigns") {
        let of_campaigns = |one: &String| one.contains("job").then(|| one.replace("job", "campaign"));
        types.extend(types.iter().filter_map(of_campaigns).collect::<Vec<_>>());
    }
    types
}

/// Messages of one type of the schema that name something of somebody: each field, and each field of a filter, that can.
/// One that names nothing is sent as it is.
fn messages(schema: &Value, names: &Names, token: &str) -> Vec<Value> {
    let properties = schema["properties"].as_object().expect("properties");
    let mut least = Map::from_iter([("type".to_owned(), properties["type"]["const"].clone())]);
    for field in schema["required"].as_array().expect("required").iter().filter_map(Value::as_str) {
        let value = match field {
            "type" => continue,
            "token" => json!(token),
            other => names.named(other).unwrap_or_else(|| panic!("{other}: say here what it names")),
        };
        least.insert(field.to_owned(), value);
    }
    let with = |field: &str, value: Value| {
        let mut message = least.clone();
        message.insert(field.to_owned(), value);
        Value::Object(message)
    };
    let mut all = Vec::new();
    for (field, rules) in properties {
        let reference = rules["$ref"].as_str().or_else(|| rules["anyOf"][0]["$ref"].as_str()).unwrap_or_default();
        let definition = reference.strip_prefix("#/$defs/").map(|name| MESSAGES.definition(name));
        if let Some(parts) = definition.and_then(|definition| definition["properties"].as_object()) {
            for part in parts.keys() {
                let value = if part == "job_type" { Some(json!(names.word)) } else { names.named(part) };
                all.extend(value.map(|value| with(field, json!({ part: value }))));
            }
        } else if !least.contains_key(field) {
            all.extend(names.named(field).map(|value| with(field, value)));
        }
    }
    if all.is_empty() { vec![Value::Object(least)] } else { all }
}

/// Everything that answers a message, without what is sent to everybody.
async fn answers(socket: &mut Socket, message: &Value) -> Vec<Value> {
    socket.send(message.clone()).await;
    let mut all = Vec::new();
    loop {
        let answer =
            socket.until_that(|answer| answer["type"] != "token_expiring" && answer["type"] != "workers_online").await;
        let goes_on = answer["type"].as_str().is_some_and(|kind| kind == "batch_requested" || kind == "batch_item");
        all.push(answer);
        if !goes_on {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_of_the_tenant_wide_socket_answers_of_another_tenants_things_as_of_nobodys() {
    let api =
        RestFixture::start(&[("limits.commands_per_minute", "100000"), ("limits.messages_per_second", "1000")]).await;
    let (owner, theirs) = tenant_with_everything(&api).await;
    api.grant("eve", &["*"]).await;
    let token = token_with("eve", "globex", &json!({}));
    let mut socket = Socket::open(&format!("ws://{}/api/v1/realtime/ws?token={token}", api.address)).await;
    assert_eq!(socket.next().await["type"], "subscribed");
    socket.send(json!({"type": "no such type"})).await;
    let taken = types(&socket.next().await);
    let known: BTreeSet<String> = MESSAGES
        .members("tenant_client")
        .map(|(_, schema)| schema["properties"]["type"]["const"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(taken, known, "what the socket takes, and what the schema has");
    let before = state(&api, &owner, &theirs).await;
    let nobodys = nobodys();
    for (name, schema) in MESSAGES.members("tenant_client") {
        let asked = messages(schema, &theirs, &token).into_iter().zip(messages(schema, &nobodys, &token));
        for (theirs_named, nobodys_named) in asked {
            let mut said = Vec::new();
            for (names, message) in [(&theirs, &theirs_named), (&nobodys, &nobodys_named)] {
                let all = answers(&mut socket, message).await;
                let has_done = all.iter().any(|answer| answer["succeeded"].as_i64().is_some_and(|count| count > 0));
                assert!(!has_done, "{message}: {all:?}");
                said.push(names.masked(&json!(all).to_string()));
            }
            assert_eq!(said[0], said[1], "{name}: {theirs_named}");
            assert!(!said[0].contains("acme"), "{theirs_named}: {}", said[0]);
        }
    }
    assert_eq!(state(&api, &owner, &theirs).await, before, "somebody else changed the tenant");
    // What happens in the other tenant reaches nobody here.
    api.post(&owner, "/api/v1/jobs/acmes-job/cancel", &json!({})).await.expect(202);
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_on_the_socket_of_an_own_resource_reaches_another_tenants() {
    let api =
        RestFixture::start(&[("limits.commands_per_minute", "100000"), ("limits.messages_per_second", "1000")]).await;
    let (owner, theirs) = tenant_with_everything(&api).await;
    let eve = api.user("eve", "globex", &["*"]).await;
    api.post(&eve, "/api/v1/campaigns", &json!({"id": "own-campaign"})).await.expect(201);
    api.post(&eve, "/api/v1/jobs", &json!({"id": "own-job", "job_type": "none"})).await.expect(201);
    let before = state(&api, &owner, &theirs).await;
    for (group, path) in [("job_client", "jobs/own-job"), ("campaign_client", "campaigns/own-campaign")] {
        let mut socket = Socket::open(&format!("ws://{}/api/v1/realtime/ws/{path}?token={eve}", api.address)).await;
        assert_eq!(socket.next().await["type"], "subscribed");
        socket.until_that(|message| message["type"].as_str().is_some_and(|kind| kind.ends_with("_snapshot"))).await;
        let nobodys = nobodys();
        for (name, schema) in MESSAGES.members(group) {
            let asked = messages(schema, &theirs, &eve).into_iter().zip(messages(schema, &nobodys, &eve));
            for (theirs_named, nobodys_named) in asked {
                let mut said = Vec::new();
                for (names, message) in [(&theirs, &theirs_named), (&nobodys, &nobodys_named)] {
                    said.push(names.masked(&json!(answers(&mut socket, message).await).to_string()));
                }
                assert_eq!(said[0], said[1], "{name}: {theirs_named}");
                let names_somebody = theirs_named.as_object().expect("an object").len() > 1 && name != "refresh_token";
                assert_eq!(names_somebody, said[0].contains("\"type\":\"error\""), "{theirs_named}: {}", said[0]);
            }
        }
    }
    assert_eq!(state(&api, &owner, &theirs).await, before, "somebody else changed the tenant");
}
