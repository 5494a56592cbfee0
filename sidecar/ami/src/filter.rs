//! Event filters, as manager.conf's `eventfilter` and the action `Filter` have them: a regular expression over the whole event, and
//! `!` in front for those that are not wanted.

use regex::bytes::{Regex, RegexBuilder};

/// The most filters of one kind in one session.
const FILTERS_LIMIT: usize = 32;
/// What one compiled expression may take.
const COMPILED_LIMIT_BYTES: usize = 64 << 10;

/// Why a filter is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is no regular expression, or one that grows too large.
    #[error("filter {filter:?} is no regular expression: {problem}")]
    Compile {
        /// What was written.
        filter: String,
        /// What is wrong.
        problem: String,
    },
    /// Too many.
    #[error("more than {FILTERS_LIMIT} filters: join some")]
    TooMany,
}

/// Filters of a user or a session.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    wanted: Vec<Regex>,
    unwanted: Vec<Regex>,
}

impl Filters {
    /// Adds one.
    pub fn add(&mut self, filter: &str) -> Result<(), FilterError> {
        let (list, expression) = match filter.strip_prefix('!') {
            Some(rest) => (&mut self.unwanted, rest),
            None => (&mut self.wanted, filter),
        };
        if list.len() == FILTERS_LIMIT {
            return Err(FilterError::TooMany);
        }
        let compiled = RegexBuilder::new(expression)
            .size_limit(COMPILED_LIMIT_BYTES)
            .dfa_size_limit(COMPILED_LIMIT_BYTES)
            .build();
        list.push(compiled.map_err(|error| FilterError::Compile {
            filter: filter.to_owned(),
            problem: error.to_string(),
        })?);
        Ok(())
    }

    /// Whether an event passes: it matches one that is wanted, if there are such, and none that is not.
    pub fn pass(&self, event: &[u8]) -> bool {
        let is_wanted = self.wanted.is_empty() || self.wanted.iter().any(|one| one.is_match(event));
        is_wanted && !self.unwanted.iter().any(|one| one.is_match(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &[u8] = b"Event: Newchannel\r\nPrivilege: call,all\r\nChannel: SIP/7\r\n\r\n";

    fn filters(list: &[&str]) -> Filters {
        let mut filters = Filters::default();
        for filter in list {
            filters.add(filter).unwrap();
        }
        filters
    }

    #[test]
    fn wanted_and_unwanted_together_as_asterisk_has_it() {
        assert!(filters(&[]).pass(CALL));
        assert!(filters(&["Event: Newchannel", "Event: Hangup"]).pass(CALL));
        assert!(!filters(&["Event: Hangup"]).pass(CALL));
        assert!(!filters(&["!Channel: SIP/.*"]).pass(CALL));
        assert!(!filters(&["Event: Newchannel", "!Channel: SIP/.*"]).pass(CALL));
        assert!(filters(&["!Channel: DAHDI"]).pass(CALL));
    }

    #[test]
    fn what_is_no_expression_or_grows_without_end_is_refused() {
        let mut filters = Filters::default();
        assert!(filters.add("a(").is_err());
        assert!(filters.add("((a{1,99}){1,99}){1,99}").is_err());
        for _ in 0..FILTERS_LIMIT {
            filters.add("x").unwrap();
        }
        assert_eq!(filters.add("x").unwrap_err(), FilterError::TooMany);
    }
}
