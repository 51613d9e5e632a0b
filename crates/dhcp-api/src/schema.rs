//! JSON schemas of the types whose JSON is not what a derive would say. Only tests carry them: the
//! document they make is compared with the one that is kept.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::option::{DhcpOption, MOST_ADDRESSES, NODE_TYPES, Shape, shape};
use crate::record::RecordValue;
use crate::resource::DnsServers;
use crate::words::{
    Cidr, DomainName, HostName, LabelKey, LeaseTime, MacAddress, Mtu, RecordName, ResourceId,
    Stamp, Text, Upstream,
};

macro_rules! schemas {
    ($($type:ident = $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";

schemas! {
    ResourceId = {
        "description": "Stable key of a resource.",
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
    };
    MacAddress = {
        "description": "A unicast Ethernet address; answered in lower case with colons.",
        "type": "string",
        "pattern": "^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$",
    };
    HostName = {
        "description": "One DNS label; answered in lower case. \"ignore\", \"infinite\", \
                        \"localhost\" and \"data-server\" are reserved.",
        "type": "string",
        "pattern": "^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$",
    };
    DomainName = {
        "description": "A domain without a final dot; answered in lower case.",
        "type": "string",
        "maxLength": 190,
        "pattern": format!("^{LABEL}(\\.{LABEL})*$"),
    };
    RecordName = {
        "description": "Name of a record below its zone's domain, or \"@\"; below in-addr.arpa \
                        and ip6.arpa it stands for itself.",
        "type": "string",
        "maxLength": 120,
        "pattern": format!("^(@|_?{LABEL}(\\._?{LABEL})*)$"),
    };
    Cidr = {
        "description": "An IPv4 network, prefix /8 to /30, host bits zero.",
        "type": "string",
        "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3}){3}/([89]|[12][0-9]|30)$",
    };
    LeaseTime = {
        "description": "\"infinite\", or 120 to 31536000 seconds; answered as text.",
        "type": ["string", "integer"],
        "pattern": "^(infinite|[0-9]{3,8})$",
        "minimum": 120,
        "maximum": 31_536_000,
    };
    Text = {
        "description": "Text for people: at most 255 bytes, no control characters.",
        "type": "string",
        "maxLength": 255,
    };
    LabelKey = { "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,63}$" };
    Upstream = {
        "description": "A name server: an address, or address#port.",
        "type": "string",
    };
    Stamp = { "description": "A moment in UTC.", "type": "string", "format": "date-time" };
    Mtu = { "type": "integer", "minimum": 576, "maximum": 9216 };
    DnsServers = {
        "description": "What clients get as name servers: \"self\" is the server's own address on \
                        their network, an empty list nothing.",
        "oneOf": [
            {"type": "string", "const": "self"},
            {
                "type": "array",
                "items": {"type": "string", "format": "ipv4"},
                "maxItems": MOST_ADDRESSES,
            },
        ],
    };
    RecordValue = {
        "description": "An IPv4 address (A), an IPv6 address (AAAA), a full name (CNAME, PTR), a \
                        text of 1 to 255 printable ASCII characters (TXT), or \"priority weight \
                        port target\" (SRV).",
        "type": "string",
    };
}

/// The schema of the values of one shape.
fn value_schema(shape: Shape) -> Value {
    let address = || json!({"type": "string", "format": "ipv4"});
    let one_or_more = |one: Value, most: usize| {
        let list = json!({"type": "array", "items": one, "minItems": 1, "maxItems": most});
        json!({"anyOf": [one, list]})
    };
    match shape {
        Shape::Address => one_or_more(address(), 1),
        Shape::Addresses | Shape::AddressPairs => one_or_more(address(), MOST_ADDRESSES),
        Shape::Number(_, low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        Shape::NodeType => json!({"type": "integer", "enum": NODE_TYPES}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Text => json!({"type": "string", "minLength": 1, "maxLength": 255}),
        Shape::Domains | Shape::SipServers => one_or_more(json!({"type": "string"}), 64),
        Shape::Routes => {
            let route = json!({"type": "string", "description": "10.0.0.0/8 10.1.1.1"});
            one_or_more(route, 28)
        }
        Shape::Bytes => json!({
            "type": "string",
            "description": "Pairs of hexadecimal digits, with colons or without.",
            "pattern": "^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2})*$",
        }),
    }
}

impl JsonSchema for DhcpOption {
    fn schema_name() -> Cow<'static, str> {
        "DhcpOption".into()
    }

    /// One alternative for every shape that a code takes.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut shapes: Vec<(Shape, Vec<u8>)> = Vec::new();
        for code in 1..=u8::MAX {
            let Ok(shape) = shape(code) else { continue };
            match shapes.iter_mut().find(|(known, _)| *known == shape) {
                Some((_, codes)) => codes.push(code),
                None => shapes.push((shape, vec![code])),
            }
        }
        let alternatives: Vec<Value> = shapes
            .into_iter()
            .map(|(shape, codes)| {
                json!({
                    "type": "object",
                    "properties": {
                        "code": {"type": "integer", "enum": codes},
                        "value": value_schema(shape),
                    },
                    "required": ["code", "value"],
                    "additionalProperties": false,
                })
            })
            .collect();
        json_schema!({
            "description": "A DHCP option; its code says what its value looks like. A client gets \
                            exactly this value, but for a final zero byte after options 66 and 67.",
            "oneOf": alternatives,
        })
    }
}
