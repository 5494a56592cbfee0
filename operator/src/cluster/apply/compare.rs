//! Whether a live object is as applied. Pure.
//!
//! Two signs together: the hash of what was applied, kept on the object, shows that what we want has not changed (a field
//! we no longer set included); and everything we want stands in the live object, so nobody else has changed it. Fields
//! that others add are theirs.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::cluster::dereference::short_hex;

/// Annotation with the hash of what was applied.
pub const HASH_ANNOTATION: &str = "pbxha.dev/applied-hash";

/// `body` with its own hash among its annotations.
pub fn with_hash(mut body: Value) -> Value {
    let hash = short_hex(&Sha256::digest(body.to_string()));
    let metadata = &mut body["metadata"];
    if metadata["annotations"].is_null() {
        metadata["annotations"] = Value::Object(Map::new());
    }
    metadata["annotations"][HASH_ANNOTATION] = Value::String(hash);
    body
}

/// Whether `live` is as `body` (made by [`with_hash`]) asks. The hash is an annotation of `body`, so it is compared too.
pub fn is_applied(body: &Value, live: &Value) -> bool {
    holds(live, body)
}

/// Whether everything in `wanted` stands in `live`. The API server drops what is empty, and rewrites quantities ("0.5" becomes "500m").
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| holds(live.get(name).unwrap_or(&Value::Null), value)),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(a, b)| holds(a, b))
        }
        (Value::Null, Value::Object(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::String(live), Value::String(wanted)) => {
            live == wanted || is_same_amount(live, wanted)
        }
        (live, wanted) => live == wanted,
    }
}

fn is_same_amount(a: &str, b: &str) -> bool {
    match (amount(a), amount(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-9,
        _ => false,
    }
}

/// The number that a Kubernetes quantity stands for.
fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Value {
        with_hash(json!({
            "metadata": {"name": "office", "labels": {"a": "b"}},
            "spec": {"ports": [{"port": 5060}], "cpu": "0.5", "empty": [], "none": null}
        }))
    }

    #[test]
    fn a_live_object_with_additions_of_others_is_as_applied() {
        let mut live = wanted();
        live["metadata"]["uid"] = json!("u");
        live["metadata"]["annotations"]["theirs"] = json!("x");
        live["spec"]["clusterIP"] = json!("10.0.0.1");
        live["spec"]["ports"][0]["nodePort"] = json!(30000);
        live["spec"]["cpu"] = json!("500m");
        live["spec"].as_object_mut().unwrap().remove("empty");
        assert!(is_applied(&wanted(), &live));
    }

    #[test]
    fn what_others_changed_or_removed_is_applied_again() {
        for change in [
            json!({"spec": {"ports": [{"port": 5061}]}}),
            json!({"spec": {"ports": []}}),
            json!({"spec": {"cpu": "501m"}}),
            json!({"metadata": {"labels": null}}),
        ] {
            let mut live = wanted();
            for (section, fields) in change.as_object().unwrap() {
                for (field, value) in fields.as_object().unwrap() {
                    live[section][field] = value.clone();
                }
            }
            assert!(!is_applied(&wanted(), &live), "{change}");
        }
    }

    #[test]
    fn a_field_that_we_no_longer_set_is_applied_again() {
        let live = wanted();
        let mut body = wanted();
        body["metadata"]["annotations"] = Value::Null;
        body["spec"].as_object_mut().unwrap().remove("cpu");
        assert!(!is_applied(&with_hash(body), &live));
    }

    #[test]
    fn amounts_are_compared_as_numbers() {
        for (a, b) in [
            ("1", "1000m"),
            ("1Gi", "1024Mi"),
            ("1e3", "1k"),
            ("0.1", "100m"),
        ] {
            assert!(is_same_amount(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("1Gi", "1G"),
            ("office", "office-0"),
            ("m", "k"),
        ] {
            assert!(!is_same_amount(a, b), "{a} {b}");
        }
    }
}
