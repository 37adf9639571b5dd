//! The part of the JSON Schema of `headwater.yaml` that is about the query API.

use headwater_query_api::{ANONYMOUS_ROLE, PAGE_DEFAULT, PAGE_MAX};
use serde_json::{Value, json};

/// JSON Schema of `api`. Sizes, durations and addresses are those of the whole.
pub(super) fn api_json_schema() -> Value {
    let object = |description: &str, required: &[&str], properties: Value| {
        json!({
            "type": "object", "description": description, "additionalProperties": false, "required": required,
            "properties": properties,
        })
    };
    let text = |description: &str| json!({ "type": "string", "description": description });
    let texts =
        |description: &str| json!({ "type": "array", "items": { "type": "string" }, "description": description });
    let span = |description: &str, default: &str| json!({ "$ref": "#/$defs/duration", "description": description, "default": default });
    let count = |description: &str, default: u32| {
        json!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1_000_000 }, { "$ref": "#/$defs/variable" }],
            "default": default, "description": description,
        })
    };
    let count_if_set = |description: &str| {
        json!({
            "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 1_000_000 }, { "$ref": "#/$defs/variable" }],
            "description": description,
        })
    };
    let rate = |description: &str| {
        object(
            description,
            &["rate"],
            json!({
                "rate": { "type": "string", "pattern": "^[1-9][0-9]*/[smh]$", "examples": ["100/s", "600/m"] },
                "burst": {
                    "type": "integer", "minimum": 1,
                    "description": "Requests at once after a pause; as many as the rate has otherwise.",
                },
            }),
        )
    };
    let binding = |description: &str| {
        object(
            description,
            &["claim"],
            json!({
                "claim": text("The claim whose value a caller's documents have. Points lead into objects."),
                "field": text("Path of the declared index with that value; the document's id where this is left out."),
                "except": texts("Roles that see every document."),
            }),
        )
    };
    let algorithms =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"];
    let issuer = object(
        "An issuer of JSON Web Tokens.",
        &["issuer", "audience", "algorithms"],
        json!({
            "issuer": text("The `iss` of its tokens, letter by letter."),
            "audience": {
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
                "description": "The `aud` of tokens meant for this API; one of them is enough.",
            },
            "algorithms": {
                "type": "array", "items": { "enum": algorithms }, "minItems": 1,
                "description": "Algorithms its tokens are signed with. HMAC ones (HS…) and others are never mixed.",
            },
            "jwks": object("Its published keys, for all but HMAC: either `url` or `file`.", &[], json!({
                "url": { "type": "string", "pattern": "^(https?://|\\$\\{)", "description": "Where the key set is fetched." },
                "file": text("A key set in a file, relative to this one."),
                "refetch_min": span("Least time between two fetches, whatever tokens come.", "30s"),
                "refresh": span("Time after which keys are fetched again.", "10m"),
            })),
            "secret": text("A secret of 32 characters or more that is shared with it, for HMAC: ${NAME}."),
            "leeway": span("How far its clock and ours may be apart.", "30s"),
            "required": texts("Claims that must be there, beside `exp` and the subject."),
            "subject": { "type": "string", "default": "sub", "description": "Claim that names the subject." },
            "roles": {
                "type": "string", "default": "roles",
                "description": "Claim with the roles: texts, or one text with blanks between. Points lead into objects.",
            },
        }),
    );
    let api_key = object(
        "A key for a program.",
        &["name", "sha256"],
        json!({
            "name": text("Names the caller in logs."),
            "sha256": {
                "type": "string", "pattern": "^([0-9A-Fa-f]{64}|\\$\\{.*\\})$",
                "description": "SHA-256 of the key, which must be random: printf %s KEY | sha256sum",
            },
            "roles": texts("The caller's roles."),
            "claims": { "type": "object", "description": "The caller's claims, for owner and tenant rules." },
        }),
    );
    let mask = object(
        "Fields that are not shown as they are. They cannot be filtered or sorted by either.",
        &["fields"],
        json!({
            "fields": texts("Their paths, as they stand in documents."),
            "mask": {
                "enum": ["hidden", "partial", "hash"], "default": "hidden",
                "description": "`hidden`: as if there were no such field. `partial`: the last four characters of eight or \
                                more. `hash`: equal values of the field can be told, and nothing else.",
            },
            "except": texts("Roles that see them as they are."),
        }),
    );
    let access = object(
        "What callers see of a model; `{}` shows everything to every caller that is let in.",
        &[],
        json!({
            "roles": texts("Roles that may read it; every caller otherwise."),
            "owner": binding("Whose a document is; also what /v1/me/{model} looks for."),
            "tenant": binding("Which tenant a document belongs to."),
            "masks": { "type": "array", "items": mask },
        }),
    );
    let fields = json!({
        "type": "array", "items": { "type": "string" },
        "examples": [["id", "total", "customer.name", "lines[0:3].{description,amount}"], ["*"]],
        "description": "Paths of fields: `*` is every one, `lines[0:3]` the first three elements, `a.{b,c}` two of them. \
                        Everything where it is left out.",
    });
    let rename = json!({
        "type": "object", "additionalProperties": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
        "description": "New last names of fields, by the paths they have in the model: `lines.amount: sum`.",
    });
    let shape = json!({ "fields": fields, "rename": rename });
    let mut channel = object(
        "What readers of one kind see of the models. It is a shape and no permission: any caller may name any channel.",
        &[],
        shape.clone(),
    );
    channel["properties"]["models"] = json!({
        "type": "object",
        "additionalProperties": object("What is shown of this model; what the channel says where it is `{}`.", &[], shape),
        "description": "The models of the channel; all of them where it is left out.",
    });
    channel["properties"]["page"] = object(
        "Sizes of pages.",
        &[],
        json!({
            "max": { "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_MAX },
            "default": { "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT },
        }),
    );
    channel["properties"]["format"] = json!({
        "enum": ["json", "cbor"], "default": "json",
        "description": "What documents are written as where a request does not say by Accept.",
    });
    channel["properties"]["live"] = json!({
        "type": "boolean", "default": true, "description": "Whether changes are streamed.",
    });
    channel["properties"]["trusted_only"] = json!({
        "type": "boolean", "default": false,
        "description": "Whether GraphQL answers the documents of `graphql.trusted_documents` and nothing else.",
    });
    let select = object(
        "One of `header`, `host` and `user_agent`.",
        &[],
        json!({
            "header": text("Its value names the channel; one that is not there is refused."),
            "host": text("Requests for this host are of the channel `as`."),
            "user_agent": text("Requests of user agents that match this regular expression are of the channel `as`."),
            "as": text("The channel."),
        }),
    );
    let listen = json!({ "$ref": "#/$defs/address", "default": "127.0.0.1:8080" });
    let anonymous = format!("Whether a request without credentials is answered, with the role `{ANONYMOUS_ROLE}`.");
    object(
        "Where readers connect: REST, GraphQL, live.",
        &[],
        json!({
            "listen": listen,
            "auth": object("How callers prove who they are; without it nobody is asked, and everybody sees everything.", &[], json!({
                "anonymous": { "type": "boolean", "default": false, "description": anonymous },
                "jwt": { "type": "array", "items": issuer },
                "api_keys": { "type": "array", "items": api_key },
            })),
            "access": {
                "type": "object", "additionalProperties": access,
                "description": "What callers see of each model, by its name. With `auth` a model without an entry is shown to nobody.",
            },
            "channels": {
                "type": "object", "additionalProperties": channel, "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
                "description": "Shapes of the models for kinds of readers (web, mobile, devices), by their names.",
            },
            "select": {
                "type": "array", "items": select, "default": [{ "header": "X-Channel" }],
                "description": "How the channel of a request is found: the first that matches. Where none does the whole shape is served.",
            },
            "channel_required": {
                "type": "boolean", "default": false, "description": "Whether requests of no channel are refused.",
            },
            "slow_query": {
                "anyOf": [{ "$ref": "#/$defs/duration" }, { "const": "off" }], "default": "250ms",
                "description": "Requests that take longer are logged, one line each, without values.",
            },
            "server_timing": {
                "type": "boolean", "default": false,
                "description": "Whether answers tell by Server-Timing how long their parts took. That helps those who guess from times, too.",
            },
            "limits": object("How much callers may ask for.", &[], json!({
                "principal": rate("Requests of one caller."),
                "address": rate("Requests from one address, looked at before credentials are."),
                "trusted_hops": {
                    "type": "integer", "minimum": 0, "default": 0,
                    "description": "Proxies in front that append to X-Forwarded-For; 0 believes no such header.",
                },
                "requests_max": count("Requests that are answered at the same time; the last quarter is kept from a caller who has a quarter.", 1024),
                "sending_bytes_max": {
                    "$ref": "#/$defs/size", "default": "512MiB",
                    "description": "Bytes of answers that are on their way to clients at the same time; an answer that would be too much gets 503. Answers of up to 64 KiB and live streams are not counted; the last quarter is kept from a caller who has a quarter.",
                },
                "connections_max": count("Connections that are open at the same time.", 20_000),
                "connections_per_address_max": count_if_set(
                    "Connections from one address that are open at the same time; more are closed at once. Not limited unless set, and not looked at with `trusted_hops`.",
                ),
                "streams_max": count_if_set(
                    "Live streams and subscriptions of one caller that are open at the same time; callers who do not say who they are are told apart by their addresses. Not limited unless set.",
                ),
                "deadline": span("How long a request may take.", "10s"),
                "queue_delay_max": span("How long work may wait for a processor before requests are turned away.", "200ms"),
            })),
            "cache": object("Documents kept at hand, whoever asks for them.", &[], json!({
                "bytes": {
                    "$ref": "#/$defs/size", "default": "64MiB",
                    "description": "Bytes of them, at most. 0: each read goes to the store, and lists and documents are compressed anew each time.",
                },
            })),
            "compression": {
                "type": "boolean", "default": true,
                "description": "Whether answers of 1 KiB and more are compressed for clients that take them so.",
            },
            "graphql": object("How GraphQL is served.", &[], json!({
                "batch_max": {
                    "type": "integer", "minimum": 0, "maximum": 1000, "default": 10,
                    "description": "Operations of one request, an array of them, at most; 0 refuses arrays.",
                },
                "persisted_queries": {
                    "$ref": "#/$defs/size", "default": "4MiB",
                    "description": "Bytes of the queries that are kept for callers who name them by their SHA-256; 0 keeps none.",
                },
                "trusted_documents": object("Documents that callers name by their ids.", &["path"], json!({
                    "path": text("A folder of *.graphql files, or a manifest in JSON, relative to this file."),
                    "only": {
                        "type": "boolean", "default": false, "description": "Whether nothing else is answered.",
                    },
                })),
                "subscriptions_max": {
                    "type": "integer", "minimum": 1, "maximum": 1000, "default": 100,
                    "description": "Operations that run on one WebSocket at the same time.",
                },
            })),
            "cursor_secret": {
                "anyOf": [{ "type": "string", "minLength": 32 }, { "$ref": "#/$defs/variable" }],
                "description": "Seals the cursors of lists, and keys the hashes that `mask: hash` shows: servers behind one address must have the same, of at least 32 characters; use ${NAME}. Another one makes old cursors void and hashes other ones. Otherwise made once, and kept beside the documents in MongoDB, or in `data`.",
            },
            "cors": object("Pages of which other origins may read answers in a browser.", &["origins"], json!({
                "origins": texts("Origins as browsers write them: https://app.example.com. `*` alone means every one."),
                "credentials": {
                    "type": "boolean", "default": false,
                    "description": "Whether browsers may send cookies; not with `*`.",
                },
                "max_age": span("How long browsers may remember what is allowed.", "10m"),
            })),
        }),
    )
}
