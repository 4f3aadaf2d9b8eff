//! Values of BGP communities: `a:b` of 16 bits each, `large:a:b:c` of 32 bits each.

use std::fmt;
use std::str::FromStr;

use api::metallb::CommunitySpec;
use serde::{Deserialize, Serialize};

use super::verdict::Findings;
use crate::name::Name;

/// A BGP community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CommunityValue {
    /// RFC 1997.
    Standard(u16, u16),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// Why a text is no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityError {
    /// Neither two nor four sections.
    #[error("invalid community format: {0}")]
    Format(String),
    /// Four sections, the first of them not `large`.
    #[error(
        "invalid community value: invalid marker for large community {0:?}, expected \"large\""
    )]
    Marker(String),
    /// A section is no number of its size.
    #[error("invalid community value: invalid section {section:?} of community {text:?}")]
    Section {
        /// The section.
        section: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for CommunityValue {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        fn number<T: FromStr>(section: &str, text: &str) -> Result<T, CommunityError> {
            // Rust reads "+1", which is no number here.
            let digits = section.bytes().all(|byte| byte.is_ascii_digit());
            section
                .parse()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| CommunityError::Section {
                    section: section.to_owned(),
                    text: text.to_owned(),
                })
        }
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [a, b] => Ok(Self::Standard(number(a, text)?, number(b, text)?)),
            ["large", a, b, c] => Ok(Self::Large(
                number(a, text)?,
                number(b, text)?,
                number(c, text)?,
            )),
            [_, _, _, _] => Err(CommunityError::Marker(text.to_owned())),
            _ => Err(CommunityError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for CommunityValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "large:{a}:{b}:{c}"),
        }
    }
}

/// An alias with its place in the list.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    pub(super) entry: usize,
    pub(super) name: Name,
    pub(super) value: CommunityValue,
}

/// Values of aliases; that names are unique over all objects is checked with the others.
pub(super) fn check(spec: &CommunitySpec, found: &mut Findings) -> Vec<Alias> {
    let aliases = &spec.communities;
    let mut checked = Vec::new();
    for (entry, alias) in aliases.iter().enumerate() {
        match alias.value.parse::<CommunityValue>() {
            Ok(value) => checked.push(Alias {
                entry,
                name: alias.name.as_str().into(),
                value,
            }),
            Err(error) => found.error(
                format!("spec.communities[{entry}].value"),
                format!("parsing community {:?}: {error}", alias.name),
                "write 65000:100 or large:65000:1:2",
            ),
        }
        if aliases
            .iter()
            .take(entry)
            .any(|earlier| earlier.name == alias.name)
        {
            found.error(
                format!("spec.communities[{entry}].name"),
                format!("duplicate definition of community {:?}", alias.name),
                "give every alias its own name",
            );
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for text in ["0:0", "65535:65535", "large:0:1:4294967295"] {
            let value: CommunityValue = text.parse().expect(text);
            assert_eq!(value.to_string(), text);
        }
        for (text, want) in [
            ("", "invalid community format"),
            ("no-export", "invalid community format"),
            ("1:2:3", "invalid community format"),
            ("1:2:3:4:5", "invalid community format"),
            ("65536:1", "invalid section \"65536\""),
            ("1:+2", "invalid section \"+2\""),
            ("1:", "invalid section \"\""),
            ("1:2:3:4", "invalid marker"),
            ("large:1:2:4294967296", "invalid section \"4294967296\""),
        ] {
            let error = text.parse::<CommunityValue>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
