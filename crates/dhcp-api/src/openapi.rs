//! The OpenAPI document, made from the types and the list of operations, and compared with the one
//! that is kept. `UPDATE_OPENAPI=1 cargo test -p dhcp-api` writes it anew.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::answer::{
    BatchAnswer, ChangeAnswer, ChangeList, DesiredAnswer, DesiredShown, DocumentShown,
    ExplainAnswer, LeaseAnswer, Liveness, Page, ProbeAnswer, RecordAnswer, ReservationAnswer,
    Status, SyncAnswer, TraceAnswer, ValidateAnswer,
};
use crate::operation::{Method, Operation};
use crate::problem::{Problem, ProblemKind, TYPE_PREFIX};
use crate::read::{Read, whole};
use crate::record::{Record, RecordType};
use crate::request::{BatchBody, BatchEntry, ReservationBody};
use crate::resource::{
    BOOKKEEPING, OptionSet, OptionSetContent, Range, RangeContent, Source, Subnet, SubnetContent,
    Zone, ZoneContent,
};
use crate::whole::{
    DesiredBody, DocumentBody, OptionSetEntry, RangeEntry, RecordEntry, SubnetEntry, ZoneEntry,
};
use crate::words::{HostName, MacAddress, RecordName, ResourceId};

struct Document {
    generator: SchemaGenerator,
    requests: Map<String, Value>,
}

/// A body of a request or an answer.
enum Content {
    Json(Value),
    Text(&'static str),
    Nothing,
}

impl Document {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self { generator: settings.into_generator(), requests: Map::new() }
    }

    fn answer<T: JsonSchema>(&mut self) -> Content {
        Content::Json(self.generator.subschema_for::<T>().to_value())
    }

    /// The schema of a request. What is required is what the reader misses in an empty object.
    fn request<T: Read + JsonSchema>(&mut self, name: &str, ignored: &[&str]) -> Value {
        let mut schema = self.generator.root_schema_for::<T>().to_value();
        if let Some(members) = schema.as_object_mut() {
            members.retain(|key, _| key != "$defs" && key != "components");
        }
        let missing = match whole::<T>(json!({})) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_parts().1,
        };
        let required: Vec<&str> = missing.iter().map(|fault| fault.field.as_str()).collect();
        self.close(schema, name, &required, ignored)
    }

    fn close(
        &mut self,
        mut schema: Value,
        name: &str,
        required: &[&str],
        ignored: &[&str],
    ) -> Value {
        schema["required"] = json!(required);
        schema["additionalProperties"] = json!(false);
        for member in ignored {
            let note = if *member == "id" {
                "Of an answer; a request may repeat it."
            } else {
                "Of an answer; a request may repeat it, and it changes nothing."
            };
            schema["properties"][*member] = json!({"description": note, "readOnly": true});
        }
        if let Some(members) = schema.as_object_mut() {
            members.remove("title");
        }
        self.requests.insert(name.to_owned(), schema);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn body(&mut self, operation: Operation) -> Option<Value> {
        Some(match operation {
            Operation::PutZone => self.request::<ZoneContent>("ZoneBody", BOOKKEEPING),
            Operation::PutSubnet => self.request::<SubnetContent>("SubnetBody", BOOKKEEPING),
            Operation::PutRange => self.request::<RangeContent>("RangeBody", BOOKKEEPING),
            Operation::PutReservation => {
                self.request::<ReservationBody>("ReservationBody", BOOKKEEPING)
            }
            Operation::BatchReservations => {
                self.request::<BatchEntry>("BatchEntry", &BOOKKEEPING[1..]);
                self.request::<BatchBody>("BatchBody", &[])
            }
            Operation::PutOptionSet => {
                self.request::<OptionSetContent>("OptionSetBody", BOOKKEEPING)
            }
            Operation::PutDesired => {
                self.entries();
                self.request::<DesiredBody>("DesiredBody", &["revision"])
            }
            Operation::PutDocument => self.document(),
            Operation::Validate => {
                let document = self.document();
                let zone = self.request::<DesiredBody>("DesiredBody", &["revision"]);
                json!({"anyOf": [document, zone]})
            }
            Operation::PutRecord => {
                let values = json!({"type": "object", "properties": {"values": {
                    "type": "array",
                    "items": self.generator.subschema_for::<crate::record::RecordValue>(),
                    "minItems": 1,
                    "maxItems": 64,
                }}});
                let ignored = ["name", "type", "applied_by"];
                let ignored: Vec<&str> = BOOKKEEPING.iter().copied().chain(ignored).collect();
                self.close(values, "RecordBody", &["values"], &ignored)
            }
            _ => return None,
        })
    }

    /// What bodies of everything are made of.
    fn entries(&mut self) {
        let owned: Vec<&str> =
            BOOKKEEPING.iter().copied().filter(|name| !["id", "source"].contains(name)).collect();
        self.request::<BatchEntry>("BatchEntry", &BOOKKEEPING[1..]);
        self.request::<RangeEntry>("RangeEntry", &BOOKKEEPING[1..]);
        self.request::<OptionSetEntry>("OptionSetEntry", &BOOKKEEPING[1..]);
        self.request::<SubnetEntry>("SubnetEntry", &owned);
        self.request::<ZoneEntry>("ZoneEntry", &owned);
        let named = [&BOOKKEEPING[1..], &["applied_by"][..]].concat();
        self.request::<RecordEntry>("RecordEntry", &named);
    }

    fn document(&mut self) -> Value {
        self.entries();
        self.request::<DocumentBody>("DocumentBody", &["revision"])
    }

    /// Answers that are not an error, by status.
    fn answers(&mut self, operation: Operation) -> Vec<(u16, Content)> {
        use Operation as O;
        let put = |document: &mut Self, answer: fn(&mut Self) -> Content| {
            [200, 201, 202].map(|status| (status, answer(document))).into()
        };
        match operation {
            O::Healthz | O::Readyz => vec![(200, self.answer::<Liveness>())],
            O::ShowStatus => vec![(200, self.answer::<Status>())],
            O::ShowOpenApi => vec![(200, Content::Json(json!({"type": "object"})))],
            O::ShowConfig => vec![(200, Content::Text("text/plain; charset=utf-8"))],
            O::ListChanges => vec![(200, self.answer::<ChangeList>())],
            O::Events => vec![(200, Content::Text("text/event-stream"))],
            O::Explain => vec![(200, self.answer::<ExplainAnswer>())],
            O::Trace => vec![(200, self.answer::<TraceAnswer>())],
            O::Probe => vec![(200, self.answer::<ProbeAnswer>())],
            O::SyncNow => vec![(200, self.answer::<SyncAnswer>()), (202, Content::Nothing)],
            O::ShowChange => vec![(200, self.answer::<ChangeAnswer>())],
            O::ListZones => vec![(200, self.answer::<Page<Zone>>())],
            O::ShowZone => vec![(200, self.answer::<Zone>())],
            O::PutZone => put(self, Self::answer::<Zone>),
            O::ListSubnets => vec![(200, self.answer::<Page<Subnet>>())],
            O::ShowSubnet => vec![(200, self.answer::<Subnet>())],
            O::PutSubnet => put(self, Self::answer::<Subnet>),
            O::ListRanges => vec![(200, self.answer::<Page<Range>>())],
            O::ShowRange => vec![(200, self.answer::<Range>())],
            O::PutRange => put(self, Self::answer::<Range>),
            O::ListReservations => vec![(200, self.answer::<Page<ReservationAnswer>>())],
            O::ShowReservation | O::ShowReservationByMac | O::ShowReservationByIp => {
                vec![(200, self.answer::<ReservationAnswer>())]
            }
            O::PutReservation => put(self, Self::answer::<ReservationAnswer>),
            O::BatchReservations => {
                vec![(200, self.answer::<BatchAnswer>()), (202, self.answer::<BatchAnswer>())]
            }
            O::ListOptionSets => vec![(200, self.answer::<Page<OptionSet>>())],
            O::ShowOptionSet => vec![(200, self.answer::<OptionSet>())],
            O::PutOptionSet => put(self, Self::answer::<OptionSet>),
            O::ShowDesired => vec![(200, self.answer::<DesiredShown>())],
            O::ShowDocument => vec![(200, self.answer::<DocumentShown>())],
            O::PutDesired | O::PutDocument => put(self, Self::answer::<DesiredAnswer>),
            O::Validate => vec![(200, self.answer::<ValidateAnswer>())],
            O::ListRecords => vec![(200, self.answer::<Page<RecordAnswer>>())],
            O::ShowRecord => vec![(200, self.answer::<RecordAnswer>())],
            O::PutRecord => put(self, Self::answer::<RecordAnswer>),
            O::ListLeases => vec![(200, self.answer::<Page<LeaseAnswer>>())],
            O::DeleteLease => vec![(204, Content::Nothing)],
            O::DeleteZone
            | O::DeleteSubnet
            | O::DeleteRange
            | O::DeleteOptionSet
            | O::DeleteReservation
            | O::DeleteRecord => vec![(202, Content::Nothing), (204, Content::Nothing)],
        }
    }

    fn parameter(&mut self, name: &str, place: &str) -> Value {
        let schema = match name {
            "limit" => json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            "cursor" => json!({"type": "string", "description": "next_cursor of the page before"}),
            "cascade" => json!({"type": "boolean", "default": false,
                "description": "Whether the contents go along."}),
            "force" => json!({"type": "boolean", "default": false,
                "description": "Whether deletions that are held are confirmed."}),
            "dry_run" => json!({"type": "boolean", "default": false,
                "description": "Whether nothing is stored."}),
            "leased" | "conflict" => json!({"type": "boolean"}),
            "file" => json!({"enum": ["main", "hosts", "opts", "names"], "default": "main"}),
            "mac" => self.generator.subschema_for::<MacAddress>().to_value(),
            "hostname" => self.generator.subschema_for::<HostName>().to_value(),
            "source" => self.generator.subschema_for::<Source>().to_value(),
            "type" => self.generator.subschema_for::<RecordType>().to_value(),
            "name" => self.generator.subschema_for::<RecordName>().to_value(),
            "who" => json!({"type": "string", "description": "MAC, IPv4 address or host name."}),
            "ip" => json!({"type": "string", "format": "ipv4"}),
            "id" | "after" => json!({"type": "integer", "minimum": 0}),
            _ => self.generator.subschema_for::<ResourceId>().to_value(),
        };
        json!({"name": name, "in": place, "required": place == "path", "schema": schema})
    }

    fn operation(&mut self, operation: Operation) -> Value {
        let segments = operation.path().split('/');
        let names = segments.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = names.map(|name| self.parameter(name, "path")).collect();
        parameters.extend(operation.query().iter().map(|name| self.parameter(name, "query")));
        let unwritten =
            [Operation::DeleteLease, Operation::SyncNow, Operation::Validate, Operation::Probe];
        let writes = operation.method() != Method::Get && !unwritten.contains(&operation);
        if writes {
            parameters.push(json!({"$ref": "#/components/parameters/Prefer"}));
            parameters.push(json!({"$ref": "#/components/parameters/IfMatch"}));
            if operation.method() == Method::Put {
                parameters.push(json!({"$ref": "#/components/parameters/IfNoneMatch"}));
            }
        }
        let mut responses = Map::new();
        for (status, content) in self.answers(operation) {
            let description = match status {
                201 => "Created, and served.",
                202 if operation == Operation::SyncNow => {
                    "It goes on; status says what came of it."
                }
                202 => "Stored; the change that Location names says when it is served.",
                204 => "Gone.",
                _ => "As asked.",
            };
            let mut response = json!({"description": description});
            match content {
                Content::Json(schema) => {
                    response["content"] = json!({"application/json": {"schema": schema}});
                }
                Content::Text(kind) => {
                    let mut text = Map::new();
                    text.insert(kind.to_owned(), json!({"schema": {"type": "string"}}));
                    response["content"] = Value::Object(text);
                }
                Content::Nothing => {}
            }
            let path = operation.path();
            let tagged = !operation.id().starts_with("list")
                && (path.contains("{zone}") || path == "/v1/desired");
            if tagged && status != 204 {
                response["headers"]["ETag"] = json!({"$ref": "#/components/headers/ETag"});
            }
            if status == 202 && operation != Operation::SyncNow {
                response["headers"]["Location"] = json!({"$ref": "#/components/headers/Location"});
                // Of what is gone there is no tag.
                if let (Method::Delete, Some(headers)) =
                    (operation.method(), response["headers"].as_object_mut())
                {
                    headers.remove("ETag");
                }
            }
            responses.insert(status.to_string(), response);
        }
        responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
        let mut made = json!({"operationId": operation.id(), "summary": operation.summary()});
        if !parameters.is_empty() {
            made["parameters"] = Value::Array(parameters);
        }
        if let Some(schema) = self.body(operation) {
            let content = json!({"application/json": {"schema": schema}});
            made["requestBody"] = json!({"required": true, "content": content});
        }
        made["responses"] = Value::Object(responses);
        made
    }

    fn whole(mut self) -> Value {
        let mut paths = Map::new();
        for operation in Operation::ALL {
            let made = self.operation(*operation);
            let path = paths.entry(operation.path()).or_insert_with(|| json!({}));
            path[operation.method().as_str().to_ascii_lowercase()] = made;
        }
        let problem = self.generator.subschema_for::<Problem>().to_value();
        self.generator.subschema_for::<Record>();
        let mut schemas: Map<String, Value> =
            self.generator.take_definitions(true).into_iter().collect();
        schemas.extend(self.requests);
        schemas.sort_keys();
        let kinds: Vec<String> =
            ProblemKind::ALL.iter().map(|kind| format!("{TYPE_PREFIX}{}", kind.slug())).collect();
        schemas["Problem"]["properties"]["type"]["enum"] = json!(kinds);
        let header = |description: &str, schema: Value| json!({"description": description, "schema": schema});
        let given = |name: &str, description: &str| {
            json!({"name": name, "in": "header", "required": false, "description": description,
                "schema": {"type": "string"}})
        };
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "QuickCloud dhcp",
                "version": "1",
                "description": "DHCP and DNS for the guests of a zone. A write is durable when it \
                    is answered, and served unless the answer is 202. Members that nobody knows \
                    are refused; every fault of a body is reported at once.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "http://localhost", "description": "On a Unix socket."}],
            // None on the Unix socket.
            "security": [{}, {"token": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer",
                    "description": "Over TCP; its role is reader, writer or admin."}},
                "schemas": schemas,
                "responses": {"Problem": {
                    "description": "An error (RFC 9457).",
                    "content": {"application/problem+json": {"schema": problem}},
                }},
                "headers": {
                    "ETag": header("Revision of the resource, after a batch of the zone, in quotes.", json!({"type": "string"})),
                    "Location": header("The change to ask for.", json!({"type": "string"})),
                },
                "parameters": {
                    "Prefer": given("Prefer", "wait=SECONDS for dnsmasq, 5 unless said; \
                        respond-async answers once stored."),
                    "IfMatch": given("If-Match", "The ETag the resource must have. Required to \
                        replace or remove a zone or subnet."),
                    "IfNoneMatch": given("If-None-Match", "* creates only."),
                },
            },
        })
    }
}

/// One line for every operation and every component: short, and fit for a diff.
fn written(value: &Value, depth: usize) -> String {
    let Value::Object(members) = value else { return value.to_string() };
    if depth == 0 || members.is_empty() {
        return value.to_string();
    }
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{}", json!(name), written(value, depth - 1)))
        .collect();
    format!("{{\n{}\n}}", members.join(",\n"))
}

#[test]
fn the_kept_document_is_the_one_the_types_make() {
    let made = written(&Document::new().whole(), 3) + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        std::fs::write(path, &made).unwrap();
        return;
    }
    assert!(made == crate::OPENAPI, "openapi.json is old: UPDATE_OPENAPI=1 cargo test -p dhcp-api");
}

/// A reference to a schema that is not there would make the document useless.
#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(crate::OPENAPI).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let target = reference.strip_prefix('#').and_then(|path| document.pointer(path));
        assert!(target.is_some(), "{reference}");
    }
}
