//! temporary, replaced by the branch `event`
#![allow(missing_docs)]
use std::fmt;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(String);
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(());
impl Patterns {
    pub fn parse_list(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() { Err(PatternError(())) } else { Ok(Self(text.into())) }
    }
}
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a pattern")
    }
}
