//! The vocabulary of the CNI specification: versions, error codes, failures.

use std::{error::Error, fmt};

use serde_json::json;

/// A version of the specification that the plugin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// All of them, the newest last.
    pub(crate) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    /// As it stands in `cniVersion`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that `text` names.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// All of them, for people.
    pub(crate) fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong, as a number: "Error codes" of the specification; 8 is `ErrInvalidNetNS` of its library, 100 and
/// above belong to the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The plugin does not speak this version, or the version does not have this command.
    IncompatibleVersion = 1,
    /// The configuration asks for something that the plugin does not do.
    UnsupportedField = 2,
    /// The container is not known; no DEL is needed.
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or wrong, or names an attachment that exists.
    InvalidEnvironment = 4,
    /// A system call failed.
    Io = 5,
    /// Standard input is not the JSON that it should be.
    Decode = 6,
    /// A value in the configuration is wrong.
    InvalidConfig = 7,
    /// `CNI_NETNS` is not a network namespace that the plugin may use.
    InvalidNetns = 8,
    /// Not now: no address is free, or the one that was asked for is in use, or the hostPort is.
    TryAgain = 11,
    /// STATUS: ADD would fail.
    NotAvailable = 50,
    /// STATUS: ADD would fail, and pods that exist may have limited connectivity.
    LimitedConnectivity = 51,
    /// CHECK: what ADD set up is not there any more.
    Damaged = 100,
}

/// A request that failed: what the runtime is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// One sentence: the bad thing and what was expected.
    pub(crate) message: String,
    /// More of it; may be empty.
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// A failure that says what `error` and all its sources say.
    pub(crate) fn of(code: Code, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(code, message)
    }

    /// The same with details.
    pub(crate) fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The JSON document for standard output.
    pub(crate) fn render(&self, version: Version) -> String {
        let document = json!({
            "cniVersion": version.as_str(),
            "code": self.code as u32,
            "msg": self.message,
            "details": self.details,
        });
        format!("{document}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order_and_known_by_name() {
        assert!(Version::ALL.is_sorted());
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        assert_eq!(Version::parse("1.2.0"), None);
    }

    #[test]
    fn a_failure_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("opening the door")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::of(Code::Io, &Outer(std::io::Error::other("no key")));
        assert_eq!(failure.message, "opening the door: no key");
    }
}
