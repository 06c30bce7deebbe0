//! Compares messages with the documents in `schema/`. It knows the words of JSON Schema that stand there, and fails at any
//! other: a rule that is not checked must not look as if it were.

use std::sync::LazyLock;

use serde_json::Value;

/// The messages of the operators' sockets.
pub static MESSAGES: LazyLock<Schema> = LazyLock::new(|| Schema::load("messages"));

/// One document.
pub struct Schema(Value);

/// What is thought of a field that a schema does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It may stand there unless the schema forbids it: so clients read.
    AsWritten,
    /// It is a fault: whoever adds a field says so in the schema.
    Refused,
}

impl Schema {
    /// `schema/NAME.schema.json`.
    pub fn load(name: &str) -> Self {
        let path = format!("{}/schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        Self(serde_json::from_str(&std::fs::read_to_string(path).expect("the schema")).expect("JSON"))
    }

    /// One of its definitions.
    pub fn definition(&self, name: &str) -> &Value {
        self.0["$defs"].get(name).unwrap_or_else(|| panic!("the schema has no {name}"))
    }

    /// The definitions of messages in a group, by name.
    pub fn members(&self, group: &str) -> impl Iterator<Item = (&str, &Value)> {
        let members = self.definition(group)["oneOf"].as_array().unwrap_or_else(|| panic!("{group} is no group"));
        members.iter().map(|member| {
            let name = member["$ref"].as_str().and_then(|text| text.strip_prefix("#/$defs/")).expect("a reference");
            (name, self.definition(name))
        })
    }

    /// Which message of a group a value says it is.
    pub fn member(&self, group: &str, value: &Value) -> Option<&str> {
        let mut fitting =
            self.members(group).filter(|(_, member)| member["properties"]["type"]["const"] == value["type"]);
        let (name, _) = fitting.next()?;
        assert!(fitting.next().is_none(), "{group} has two messages of the type {}", value["type"]);
        Some(name)
    }

    /// Whether a value is a message of a group; if not, why.
    pub fn check(&self, group: &str, value: &Value, others: Others) -> Result<(), String> {
        let name = self.member(group, value).ok_or_else(|| format!("{group} has no message of this type: {value}"))?;
        self.fits(self.definition(name), value, others).map_err(|why| format!("{name}: {why}: {value}"))
    }

    fn fits(&self, schema: &Value, value: &Value, others: Others) -> Result<(), String> {
        let rules = schema.as_object().expect("a schema is an object");
        let named = schema["properties"].as_object();
        if others == Others::Refused
            && let (Some(named), Some(fields)) = (named, value.as_object())
            && let Some(odd) = fields.keys().find(|field| !named.contains_key(*field))
        {
            return Err(format!("the schema names no field {odd}"));
        }
        rules.iter().try_for_each(|(word, rule)| self.holds(schema, word, rule, value, others))
    }

    fn holds(&self, schema: &Value, word: &str, rule: &Value, value: &Value, others: Others) -> Result<(), String> {
        let number = || rule.as_f64().expect("a number");
        let length = || rule.as_u64().expect("a length") as usize;
        let holds = match word {
            "title" | "description" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|text| text.strip_prefix("#/$defs/")).expect("a reference");
                return self.fits(self.definition(name), value, others);
            }
            "anyOf" => {
                let mut reasons = Vec::new();
                for choice in rule.as_array().expect("schemas") {
                    match self.fits(choice, value, others) {
                        Ok(()) => return Ok(()),
                        Err(reason) => reasons.push(reason),
                    }
                }
                return Err(reasons.join("; "));
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
                    let field = value.get(name).map_or(Ok(()), |field| self.fits(of, field, others));
                    field.map_err(|why| format!("{name}: {why}"))?;
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    self.fits(rule, item, others)?;
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(rule, &Value::Bool(false), "nothing else is known here");
                value.as_object().is_none_or(|f| f.keys().all(|name| schema["properties"].get(name).is_some()))
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() >= length()),
            "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= length()),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= length()),
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|value| value > number()),
            "pattern" => {
                assert_eq!(rule, "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "nothing else is known here");
                value.as_str().is_none_or(|text| text.parse::<wheelhouse::domain::ResourceId>().is_ok())
            }
            "format" => value.as_str().is_none_or(|text| match rule.as_str().expect("a format") {
                "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
                "uuid" => text.parse::<wheelhouse::domain::CommandId>().is_ok(),
                other => panic!("the schema says format {other}, which is not checked here"),
            }),
            other => panic!("the schema says {other}, which is not checked here"),
        };
        if holds { Ok(()) } else { Err(format!("{word} {rule} does not hold")) }
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        // 60.0 is a whole number, too.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema says type {other}, which is not checked here"),
    }
}
