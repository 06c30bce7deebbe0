//! Compares a message with `schema/worker.schema.json`. It knows the words of JSON Schema that stand there, and fails at
//! any other: a rule that is not checked must not look as if it were.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/worker.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("JSON")
});

/// What a client may send.
pub fn is_from_client(message: &Value) -> Result<(), String> {
    check(&SCHEMA["$defs"]["client"], message)
}

/// What a worker may send.
pub fn is_from_worker(message: &Value) -> Result<(), String> {
    check(&SCHEMA["$defs"]["server"], message)
}

fn check(schema: &Value, value: &Value) -> Result<(), String> {
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        check_word(schema, word, rule, value).map_err(|why| format!("{why}: {value}"))?;
    }
    Ok(())
}

fn check_word(schema: &Value, word: &str, rule: &Value, value: &Value) -> Result<(), String> {
    let holds = match word {
        "title" | "description" | "format" => true,
        "$ref" => {
            let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference inside the schema");
            return check(SCHEMA.pointer(pointer).expect("what the reference names"), value);
        }
        "oneOf" => {
            let fits = rule.as_array().expect("schemas").iter().filter(|one| check(one, value).is_ok()).count();
            if fits != 1 {
                // Of the message that it says it is, for words that help.
                let kind = value["type"].as_str().unwrap_or_default();
                return check(&SCHEMA["$defs"][kind], value).and(Err(format!("{fits} schemas fit")));
            }
            true
        }
        "type" => match rule {
            Value::String(name) => is_of_type(name, value),
            names => {
                names.as_array().expect("types").iter().any(|name| is_of_type(name.as_str().expect("type"), value))
            }
        },
        "const" => rule == value,
        "enum" => rule.as_array().expect("values").contains(value),
        "required" => {
            rule.as_array().expect("names").iter().all(|name| value.get(name.as_str().expect("name")).is_some())
        }
        "properties" => {
            for (name, of) in rule.as_object().expect("properties") {
                value.get(name).map_or(Ok(()), |field| check(of, field)).map_err(|why| format!("{name}: {why}"))?;
            }
            true
        }
        "additionalProperties" => {
            assert_eq!(rule, &Value::Bool(false), "nothing else is known here");
            value.as_object().is_none_or(|fields| fields.keys().all(|name| schema["properties"].get(name).is_some()))
        }
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().expect("length")),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().expect("length")),
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().expect("number")),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().expect("number")),
        "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > rule.as_f64().expect("number")),
        "pattern" => {
            assert_eq!(rule, "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "nothing else is known here");
            value.as_str().is_none_or(|text| text.parse::<wheelhouse::domain::ResourceId>().is_ok())
        }
        other => panic!("the schema says {other}, which is not checked here"),
    };
    if holds { Ok(()) } else { Err(format!("{word} {rule} does not hold")) }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema says type {other}, which is not checked here"),
    }
}

#[test]
fn the_schema_tells_good_messages_from_bad_ones() {
    use serde_json::json;
    let attach = json!({"type": "attach", "ref": 1, "tenant_id": "acme", "job_id": "j", "parameters": [1]});
    assert_eq!(is_from_client(&attach), Ok(()));
    for (name, value) in [("ref", json!(0)), ("tenant_id", json!("a:b")), ("color", json!(1)), ("run", json!("1"))] {
        let mut bad = attach.clone();
        bad[name] = value;
        assert!(is_from_client(&bad).is_err(), "{bad}");
    }
    assert!(is_from_worker(&attach).is_err());
    assert_eq!(is_from_worker(&json!({"type": "saved", "ref": 1, "n": 2})), Ok(()));
}
