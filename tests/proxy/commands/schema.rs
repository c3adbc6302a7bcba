//! `hookgate schema`. What is in it is tested where it is made.

use serde_json::Value;

use crate::support::gate::run;

#[test]
fn the_schema_is_one_document_that_an_editor_can_take() {
    let finished = run(&["schema"]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    let schema: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["limits"]["properties"]["max_body"]["default"], "25MiB");
    assert_eq!(schema["properties"]["hook"]["items"]["additionalProperties"], false);
    assert_eq!(run(&["schema", "hookgate.toml"]).code, Some(2));
}
