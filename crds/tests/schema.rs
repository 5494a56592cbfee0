//! The CRD's schema keeps its promises to people: everything is described, every rule says what to change, and no value is
//! taken for a boolean by an old YAML reader.

use kube::CustomResourceExt;
use pbx_crds::PbxCluster;
use serde_json::Value;

fn schema() -> Value {
    let crd = serde_json::to_value(PbxCluster::crd()).expect("a CRD is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path and schema of every property, item and value, at any depth.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&format!("{path}[]"), &schema[inner], visit);
        }
    }
}

fn offenders(mut is_wrong: impl FnMut(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        if is_wrong(schema) {
            found.push(path.to_owned());
        }
    });
    found
}

#[test]
fn every_field_has_a_description() {
    let bare: Vec<_> = offenders(|schema| schema["description"].as_str().is_none_or(str::is_empty))
        .into_iter()
        // The values of a map or list of plain texts; their field is described.
        .filter(|path| !path.ends_with("[]"))
        .collect();
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn no_value_is_a_boolean_to_a_yaml_1_1_reader() {
    const BOOLEANS: [&str; 10] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "~",
    ];
    let wrong = offenders(|schema| {
        let values = schema["enum"].as_array().into_iter().flatten();
        let mut words = values.filter_map(Value::as_str);
        words.any(|word| BOOLEANS.contains(&word.to_lowercase().as_str()))
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_rule_says_what_to_change() {
    let mut rules = 0;
    let silent = offenders(|schema| {
        let list = schema["x-kubernetes-validations"].as_array();
        rules += list.map_or(0, Vec::len);
        list.into_iter()
            .flatten()
            .any(|rule| rule["message"].as_str().is_none_or(|text| text.len() < 20))
    });
    assert_eq!(silent, Vec::<String>::new());
    assert!(rules >= 8, "{rules} rules were found");
}

#[test]
fn lists_of_named_things_are_maps() {
    let schema = schema();
    let key = |pointer: &str| {
        let list = schema.pointer(pointer).unwrap();
        assert_eq!(list["x-kubernetes-list-type"], "map", "{pointer}");
        list["x-kubernetes-list-map-keys"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let status = "/properties/status/properties";
    assert_eq!(
        key("/properties/spec/properties/network/properties/service/properties/ports"),
        "name"
    );
    assert_eq!(key(&format!("{status}/nodes")), "name");
    assert_eq!(key(&format!("{status}/conditions")), "type");
    assert_eq!(key(&format!("{status}/failoverHistory")), "epoch");
}

#[test]
fn nothing_unknown_is_kept() {
    let loose = offenders(|schema| schema["x-kubernetes-preserve-unknown-fields"] == true);
    assert_eq!(loose, Vec::<String>::new());
}

#[test]
fn the_crd_is_far_below_the_limit_of_an_object() {
    let bytes = serde_json::to_vec(&PbxCluster::crd()).unwrap().len();
    assert!(bytes < 500_000, "{bytes} bytes");
}
