//! What is refused at present: a [`Notice`] for each change of it.

use std::collections::BTreeMap;

use super::Notice;

/// What is refused, and why. The same refusal is told once.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<String, String>);

impl Refused {
    /// Takes one thing as refused, or as in order.
    pub(super) fn set(&mut self, what: &str, why: Option<String>) -> Option<Notice> {
        match why {
            None => self.0.remove(what).map(|_| Notice::Accepted { what: what.into() }),
            Some(why) if self.0.get(what) == Some(&why) => None,
            Some(why) => {
                self.0.insert(what.into(), why.clone());
                Some(Notice::Rejected { what: what.into(), why })
            }
        }
    }

    /// Takes exactly these as refused: what was and is not any more is in order.
    pub(super) fn replace(&mut self, refused: BTreeMap<String, String>) -> Vec<Notice> {
        let cleared: Vec<String> =
            self.0.keys().filter(|what| !refused.contains_key(*what)).cloned().collect();
        let mut notices: Vec<Notice> = cleared.iter().filter_map(|what| self.set(what, None)).collect();
        notices.extend(refused.into_iter().filter_map(|(what, why)| self.set(&what, Some(why))));
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(notices: impl IntoIterator<Item = Notice>) -> Vec<String> {
        let show = |notice| match notice {
            Notice::Rejected { what, why } => format!("-{what} {why}"),
            Notice::Accepted { what } => format!("+{what}"),
            Notice::Started | Notice::Event(_) | Notice::Health(_) => panic!("not about refusals"),
        };
        notices.into_iter().map(show).collect()
    }

    #[test]
    fn only_changes_are_told() {
        let mut refused = Refused::default();
        assert_eq!(shown(refused.set("a", None)), [""; 0]);
        assert_eq!(shown(refused.set("a", Some("x".into()))), ["-a x"]);
        assert_eq!(shown(refused.set("a", Some("x".into()))), [""; 0]);
        assert_eq!(shown(refused.set("a", Some("y".into()))), ["-a y"]);
        assert_eq!(shown(refused.set("b", Some("z".into()))), ["-b z"]);
        let replacement = BTreeMap::from([("b".to_owned(), "z".to_owned()), ("c".into(), "w".into())]);
        assert_eq!(shown(refused.replace(replacement)), ["+a", "-c w"]);
        assert_eq!(shown(refused.set("b", None)), ["+b"]);
    }
}
