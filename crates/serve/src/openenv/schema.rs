//! What the server says about itself.

use serde_json::{Value, json};

/// `/metadata`.
pub(crate) fn metadata(env: &str) -> Value {
    let description = match env {
        "alfworld" => "ALFWorld's text games: household tasks by text commands",
        "households" => "Generated household tasks by text commands",
        "webshop" => "WebShop: search a catalogue and buy what the instruction asks for",
        "search" => "Deep Search: answer questions by searching passages",
        _ => "A text environment",
    };
    json!({
        "name": env,
        "description": description,
        "readme_content": null,
        "version": env!("CARGO_PKG_VERSION"),
        "author": null,
        "documentation_url": null,
    })
}

fn metadata_field() -> Value {
    json!({"type": "object", "title": "Metadata", "additionalProperties": true, "default": {}})
}

fn action() -> Value {
    json!({
        "title": "EmpgAction",
        "description": "What the agent writes.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "metadata": metadata_field(),
            "text": {"type": "string", "title": "Text", "description": "The command"},
        },
        "required": ["text"],
    })
}

fn observation() -> Value {
    let text =
        |title: &str, what: &str| json!({"type": "string", "title": title, "description": what});
    let flag = |title: &str, what: &str| json!({"type": "boolean", "title": title, "description": what, "default": false});
    json!({
        "title": "EmpgObservation",
        "description": "What the agent sees.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "done": flag("Done", "Whether the episode is over"),
            "reward": {"anyOf": [{"type": "boolean"}, {"type": "integer"}, {"type": "number"},
                {"type": "null"}], "default": null, "title": "Reward"},
            "metadata": metadata_field(),
            "text": text("Text", "As the environment prints it"),
            "admissible": {"type": "array", "items": {"type": "string"}, "title": "Admissible",
                "description": "Commands that would have an effect now, where the environment knows them"},
            "won": flag("Won", "Whether the task is solved"),
            "effect": {"type": "boolean", "title": "Effect", "default": true,
                "description": "Whether the command was understood"},
            "truncated": flag("Truncated", "Whether a limit ended the episode"),
            "task_id": text("Task Id", "The task; reset takes it"),
            "task_type": text("Task Type", "What kind of task it is; empty where a reset named the task"),
        },
        "required": ["text"],
    })
}

fn state() -> Value {
    let text = |title: &str| json!({"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": title});
    json!({
        "title": "EmpgState",
        "description": "Where the episode stands.",
        "type": "object",
        "additionalProperties": true,
        "properties": {
            "episode_id": text("Episode Id"),
            "step_count": {"type": "integer", "minimum": 0, "default": 0, "title": "Step Count"},
            "task_id": text("Task Id"),
            "task_type": text("Task Type"),
            "done": {"type": "boolean", "default": false, "title": "Done"},
        },
    })
}

/// `/schema`.
pub(crate) fn schemas() -> Value {
    json!({"action": action(), "observation": observation(), "state": state()})
}

/// `/openapi.json`: the routes, for tools that ask what there is.
pub(crate) fn openapi() -> Value {
    let get =
        |what: &str| json!({"get": {"summary": what, "responses": {"200": {"description": what}}}});
    let post = |what: &str, body: Value| {
        json!({"post": {
            "summary": what,
            "requestBody": {"content": {"application/json": {"schema": body}}},
            "responses": {"200": {"description": what},
                "422": {"description": "A field that is missing, too much, or of the wrong type"}},
        }})
    };
    let reset = json!({"type": "object", "additionalProperties": true, "properties": {
        "seed": {"type": "integer", "minimum": 0}, "episode_id": {"type": "string", "maxLength": 255},
        "task_id": {"type": "string"}, "split": {"enum": ["train", "seen", "unseen"]}}});
    let step = json!({"type": "object", "required": ["action"], "properties": {
        "action": action(), "timeout_s": {"type": "number", "exclusiveMinimum": 0},
        "request_id": {"type": "string", "maxLength": 255}}});
    json!({
        "openapi": "3.1.0",
        "info": {"title": "OpenEnv Environment HTTP API", "version": env!("CARGO_PKG_VERSION")},
        "paths": {
            "/reset": post("Reset a fresh environment", reset),
            "/step": post("Take a step in a fresh environment", step),
            "/state": get("State of a fresh environment"),
            "/metadata": get("What the environment is"),
            "/health": get("Whether the server is up"),
            "/schema": get("JSON schemas of action, observation and state"),
            "/mcp": post("JSON-RPC", json!({"type": "object"})),
        },
    })
}
