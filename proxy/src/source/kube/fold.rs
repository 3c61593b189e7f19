//! What a watcher says, folded into what the core hears: pure.

use std::collections::BTreeMap;

use ::kube::runtime::watcher::Event as Said;
use portolan_core::event::Event;
use portolan_core::object::{Kind, Object};

use super::Item;
use crate::source::Notice;
use crate::source::parse::{Parse, Parsed};
use crate::source::refused::Refused;

/// The state of a watch of one kind.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// A list that is not complete yet.
    list: Option<List>,
    refused: Refused,
}

#[derive(Debug, Default)]
struct List {
    objects: Vec<Object>,
    refused: BTreeMap<String, String>,
}

impl Fold {
    /// Whether a list has begun and is not complete.
    pub(super) fn is_listing(&self) -> bool {
        self.list.is_some()
    }

    /// What follows from what a watcher says.
    pub(super) fn said<K: Parse>(&mut self, event: Said<Item<K>>) -> Vec<Notice> {
        match event {
            Said::Init => {
                self.list = Some(List::default());
                Vec::new()
            }
            Said::InitApply(item) => {
                self.list.get_or_insert_default().push(item);
                Vec::new()
            }
            Said::InitDone => self.complete(K::KIND),
            Said::Apply(item) => self.apply(item),
            Said::Delete(item) => {
                let key = item.key();
                let cleared = self.refused.set(&key.to_string(), None);
                [Notice::Event(Event::Delete(key))].into_iter().chain(cleared).collect()
            }
        }
    }

    /// The kind does not exist: an empty list.
    pub(super) fn absent(&mut self, kind: Kind) -> Vec<Notice> {
        self.list = None;
        self.complete(kind)
    }

    fn complete(&mut self, kind: Kind) -> Vec<Notice> {
        let List { mut objects, refused } = self.list.take().unwrap_or_default();
        objects.shrink_to_fit();
        let reset = Notice::Event(Event::Reset(kind, objects));
        [reset].into_iter().chain(self.refused.replace(refused)).collect()
    }

    fn apply<K: Parse>(&mut self, item: Item<K>) -> Vec<Notice> {
        let what = item.key().to_string();
        let (event, why) = match item.parsed {
            Ok(Parsed::Object { object, warnings }) => (Some(Event::Apply(object)), warned(&warnings)),
            Ok(Parsed::Ignored(key)) => (Some(Event::Delete(key)), None),
            Err(rejected) => (None, Some(rejected.why)),
        };
        event.map(Notice::Event).into_iter().chain(self.refused.set(&what, why)).collect()
    }
}

impl List {
    fn push<K: Parse>(&mut self, item: Item<K>) {
        let what = item.key().to_string();
        let why = match item.parsed {
            Ok(Parsed::Object { object, warnings }) => {
                self.objects.push(object);
                warned(&warnings)
            }
            Ok(Parsed::Ignored(_)) => None,
            Err(rejected) => Some(rejected.why),
        };
        self.refused.extend(why.map(|why| (what, why)));
    }
}

fn warned(warnings: &[String]) -> Option<String> {
    (!warnings.is_empty()).then(|| warnings.join("; "))
}
