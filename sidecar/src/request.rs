//! What the annotation of the resource asks for: `any`, a node's name, `drill` or `cancel`, then optionally a strategy. What
//! follows a `#` makes the same wish a new one. Pure.

use pbx_crds::names::SWITCHOVER_ANNOTATION;
use pbx_crds::switchover::SwitchoverStrategy;
use thiserror::Error;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A move.
    Switchover {
        /// The heir; none: the best.
        to: Option<String>,
        /// None: as configured.
        strategy: Option<SwitchoverStrategy>,
    },
    /// A move that proves the standby.
    Drill,
    /// A waiting move is called off.
    Cancel,
}

/// Why an annotation cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Its value.
    #[error(
        "annotation {SWITCHOVER_ANNOTATION} is \"{0}\": write any, the name of a node, drill or cancel, then optionally Immediate, Drain or WhenIdle"
    )]
    Malformed(String),
}

/// Reads the value of the annotation; any word that is no strategy and no key word is a node's name.
pub fn parse(value: &str) -> Result<Asked, RequestError> {
    let malformed = || RequestError::Malformed(value.chars().take(80).collect());
    let wish = value.split('#').next().unwrap_or_default();
    let mut words = wish.split_whitespace();
    let what = words.next().ok_or_else(malformed)?;
    let strategy = match words.next() {
        None => None,
        Some("Immediate") => Some(SwitchoverStrategy::Immediate),
        Some("Drain") => Some(SwitchoverStrategy::Drain),
        Some("WhenIdle") => Some(SwitchoverStrategy::WhenIdle),
        Some(_) => return Err(malformed()),
    };
    if words.next().is_some() {
        return Err(malformed());
    }
    match (what, strategy) {
        ("cancel", None) => Ok(Asked::Cancel),
        ("drill", None) => Ok(Asked::Drill),
        ("cancel" | "drill", Some(_)) => Err(malformed()),
        ("any", strategy) => Ok(Asked::Switchover { to: None, strategy }),
        (node, strategy) => Ok(Asked::Switchover {
            to: Some(node.to_owned()),
            strategy,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let any = Asked::Switchover {
            to: None,
            strategy: None,
        };
        assert_eq!(parse("any"), Ok(any));
        let named = Asked::Switchover {
            to: Some("office-1".into()),
            strategy: Some(SwitchoverStrategy::Drain),
        };
        assert_eq!(parse(" office-1  Drain "), Ok(named));
        assert_eq!(parse("drill"), Ok(Asked::Drill));
        assert_eq!(parse("cancel #1795337380"), Ok(Asked::Cancel));
    }

    #[test]
    fn anything_else_is_said_with_the_fix() {
        for wrong in ["", "  ", "any Sometimes", "any Drain now", "cancel Drain"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("write any"), "{error}");
        }
    }
}
