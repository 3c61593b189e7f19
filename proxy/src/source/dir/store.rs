//! Who defines what: pure. The first definition of an object, by file name and then by place, is in force; another
//! one takes over when it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_core::event::Event;
use portolan_core::object::{Kind, Object};

use super::file::{Broken, Piece, Reader};
use super::manifest::{Identity, Outcome};
use crate::source::Notice;
use crate::source::refused::Refused;

type FileName = Arc<str>;

/// A text of a definition, by its hash: the same version defines the same objects.
type Version = u64;

/// The objects of definitions that were read.
type Fresh = BTreeMap<Version, Vec<Object>>;

/// All definitions of all files.
#[derive(Debug, Default)]
pub(super) struct Store {
    files: BTreeMap<FileName, FileState>,
    objects: BTreeMap<Arc<Identity>, Definitions>,
    /// The files with something to report.
    complaining: BTreeSet<FileName>,
    /// The objects that are defined more than once.
    contested: BTreeSet<Arc<Identity>>,
    refused: Refused,
}

#[derive(Debug, Default)]
struct FileState {
    manifests: Vec<Manifest>,
    broken: Vec<Broken>,
}

impl FileState {
    /// What the manifest number `place` defines, and in which version.
    fn claim(&self, place: usize) -> Option<(&Arc<Identity>, Version)> {
        let manifest = self.manifests.get(place)?;
        Some((manifest.id.as_ref()?, manifest.version?))
    }

    fn complains(&self) -> bool {
        !self.broken.is_empty() || self.manifests.iter().any(|manifest| manifest.complaint.is_some())
    }
}

/// A manifest as it was when last read.
#[derive(Clone, Debug)]
struct Manifest {
    line: usize,
    hash: u64,
    /// What it defines, if that could be told.
    id: Option<Arc<Identity>>,
    /// The version in force: its own, or the one before it was broken.
    version: Option<Version>,
    complaint: Option<Box<Complaint>>,
}

/// What is wrong with a manifest. Lines count from the manifest's first, 0.
#[derive(Clone, Debug)]
struct Complaint {
    offset: usize,
    why: String,
}

/// An object: who defines it, in the order in which they count, and what was delivered.
#[derive(Debug, Default)]
struct Definitions {
    claims: Vec<Claim>,
    sent: Option<Sent>,
}

/// A file defines an object in its manifest number `place`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    file: FileName,
    place: usize,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    version: Version,
    /// How many objects the definition makes: 1, other than of Endpoints.
    count: usize,
}

/// A file as read now.
#[derive(Debug)]
pub(super) struct Reading {
    file: FileName,
    known: BTreeMap<u64, Manifest>,
    state: FileState,
    fresh: Fresh,
    /// The versions before, by what they define: those of broken manifests stay in force.
    before: BTreeMap<Arc<Identity>, Version>,
}

impl Reader for Reading {
    fn knows(&self, hash: u64) -> bool {
        self.known.contains_key(&hash)
    }

    fn piece(&mut self, Piece { line, hash, outcome }: Piece) {
        let manifest = match outcome {
            None => self.known.get(&hash).map(|known| Manifest { line, ..known.clone() }),
            Some(outcome) => Some(self.manifest(line, hash, outcome)),
        };
        self.state.manifests.extend(manifest);
    }

    fn broken(&mut self, broken: Broken) {
        self.state.broken.push(broken);
    }
}

impl Reading {
    fn manifest(&mut self, line: usize, hash: u64, outcome: Outcome) -> Manifest {
        let (id, version, complaint) = match outcome {
            Outcome::Foreign => (None, None, None),
            Outcome::Objects { id, objects, warnings } => {
                let why = (!warnings.is_empty()).then(|| format!("{id}: {}", warnings.join("; ")));
                self.fresh.insert(hash, objects);
                (Some(Arc::new(id)), Some(hash), why.map(|why| Complaint { offset: 0, why }))
            }
            Outcome::Rejected { id, line, why } => {
                let version = id.as_ref().and_then(|id| self.before.get(id).copied());
                let why = match &id {
                    Some(id) => format!("{id}: {why}"),
                    None => why,
                };
                let offset = line.map_or(0, |line| line.saturating_sub(1));
                (id.map(Arc::new), version, Some(Complaint { offset, why }))
            }
        };
        Manifest { line, hash, id, version, complaint: complaint.map(Box::new) }
    }

    /// What a broken part defined nobody knows; so whatever the file defined and does not now stays as it was.
    fn keep_what_may_be_broken(&mut self) {
        if self.state.broken.is_empty() {
            return;
        }
        let now: BTreeSet<_> =
            self.state.manifests.iter().filter_map(|manifest| manifest.id.clone()).collect();
        let lost = self.known.values().filter(|known| known.id.as_ref().is_some_and(|id| !now.contains(id)));
        let lost: Vec<Manifest> = lost.map(|known| Manifest { complaint: None, ..known.clone() }).collect();
        self.state.manifests.extend(lost);
    }
}

impl Store {
    /// Begins to read a file, new or known.
    pub(super) fn reading(&self, file: &str) -> Reading {
        let manifests = self.files.get(file).map(|state| state.manifests.as_slice()).unwrap_or_default();
        let versions = manifests.iter().rev().filter_map(|of| Some((of.id.clone()?, of.version?)));
        Reading {
            file: file.into(),
            known: manifests.iter().map(|manifest| (manifest.hash, manifest.clone())).collect(),
            state: FileState::default(),
            fresh: Fresh::new(),
            before: versions.collect(),
        }
    }

    /// Takes over what was read and removes files that are gone. `load` reads versions again that a file defines but
    /// that were not in force when it was read; those that it does not find there any more are passed over.
    ///
    /// Definitions come before removals: an endpoint that moves between two objects is in one of them all the time.
    pub(super) fn update(
        &mut self,
        readings: Vec<Reading>,
        gone: &[String],
        load: impl Fn(&str, &BTreeSet<Version>) -> Fresh,
    ) -> Vec<Event> {
        let mut touched = BTreeSet::new();
        let mut fresh = Fresh::new();
        for file in gone {
            self.replace(&FileName::from(file.as_str()), FileState::default(), &mut touched);
        }
        for mut reading in readings {
            reading.keep_what_may_be_broken();
            self.replace(&reading.file, reading.state, &mut touched);
            fresh.extend(reading.fresh);
        }
        self.load_missing(&touched, &mut fresh, load);
        let (mut applies, mut deletes) = (Vec::new(), Vec::new());
        for id in touched {
            self.resolve(&id, &mut fresh, &mut applies, &mut deletes);
        }
        applies.append(&mut deletes);
        applies
    }

    /// What is reported now and was not, and the other way round.
    pub(super) fn reports(&mut self) -> Vec<Notice> {
        let mut reports: BTreeMap<String, String> = BTreeMap::new();
        let mut report = |what: String, why: &str| {
            let text = reports.entry(what).or_default();
            text.push_str(if text.is_empty() { "" } else { "; " });
            text.push_str(why);
        };
        for (file, state) in self.complaining.iter().filter_map(|file| self.files.get_key_value(file)) {
            for broken in &state.broken {
                report(
                    broken.line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}")),
                    &broken.why,
                );
            }
            for Manifest { line, complaint, .. } in &state.manifests {
                if let Some(complaint) = complaint {
                    report(format!("{file}:{}", line + complaint.offset), &complaint.why);
                }
            }
        }
        for (id, Definitions { claims, .. }) in
            self.contested.iter().filter_map(|id| self.objects.get_key_value(id))
        {
            let line = |claim: &Claim| self.files[&claim.file].manifests[claim.place].line;
            let mut places = claims.iter().map(|claim| (&claim.file, line(claim)));
            let Some((first, at)) = places.next() else { continue };
            for (file, line) in places {
                let why = format!("{id} is defined in {first}:{at} already, this definition is not used");
                report(format!("{file}:{line}"), &why);
            }
        }
        self.refused.replace(reports)
    }

    /// Puts the manifests of a file in the place of those that it had, and notes which objects that concerns.
    fn replace(&mut self, file: &FileName, state: FileState, touched: &mut BTreeSet<Arc<Identity>>) {
        let before = self.files.remove(file).unwrap_or_default();
        for place in 0..before.manifests.len().max(state.manifests.len()) {
            let (old, new) = (before.claim(place), state.claim(place));
            if old == new {
                continue;
            }
            if let Some((id, _)) = old {
                self.claims(id, |claims| claims.retain(|claim| (&claim.file, claim.place) != (file, place)));
                touched.insert(id.clone());
            }
            if let Some((id, version)) = new {
                self.claims(id, |claims| {
                    // Nearly every object is defined once.
                    claims.reserve_exact(1);
                    claims.push(Claim { file: file.clone(), place, version });
                });
                touched.insert(id.clone());
            }
        }
        if state.complains() {
            self.complaining.insert(file.clone());
        } else {
            self.complaining.remove(file);
        }
        if !state.manifests.is_empty() || !state.broken.is_empty() {
            self.files.insert(file.clone(), state);
        }
    }

    fn claims(&mut self, id: &Arc<Identity>, change: impl FnOnce(&mut Vec<Claim>)) {
        let claims = &mut self.objects.entry(id.clone()).or_default().claims;
        change(claims);
        claims.sort_unstable();
        if claims.len() > 1 {
            self.contested.insert(id.clone());
        } else {
            self.contested.remove(id);
        }
    }

    /// Loads the versions that shall be in force, are not, and are not at hand.
    fn load_missing(
        &self,
        touched: &BTreeSet<Arc<Identity>>,
        fresh: &mut Fresh,
        load: impl Fn(&str, &BTreeSet<Version>) -> Fresh,
    ) {
        let mut missing: BTreeMap<&FileName, BTreeSet<Version>> = BTreeMap::new();
        for definitions in touched.iter().filter_map(|id| self.objects.get(id)) {
            let in_force = definitions.sent.map(|sent| sent.version);
            for Claim { file, version, .. } in &definitions.claims {
                if in_force == Some(*version) || fresh.contains_key(version) {
                    break;
                }
                missing.entry(file).or_default().insert(*version);
            }
        }
        for (file, versions) in missing {
            fresh.extend(load(file, &versions));
        }
    }

    /// Puts the first definition of an object that can be had into force.
    fn resolve(
        &mut self,
        id: &Arc<Identity>,
        fresh: &mut Fresh,
        applies: &mut Vec<Event>,
        deletes: &mut Vec<Event>,
    ) {
        let Some(definitions) = self.objects.get_mut(id) else { return };
        let before = definitions.sent;
        let in_force = before.map(|sent| sent.version);
        let count = before.map_or(0, |sent| sent.count);
        if definitions.claims.is_empty() {
            deletes.extend((0..count).map(|n| Event::Delete(id.key(n))));
            self.objects.remove(id);
            return;
        }
        for Claim { version, .. } in &definitions.claims {
            if in_force == Some(*version) {
                return;
            }
            if let Some(objects) = fresh.remove(version) {
                definitions.sent = Some(Sent { version: *version, count: objects.len() });
                deletes.extend((objects.len()..count).map(|n| Event::Delete(id.key(n))));
                applies.extend(objects.into_iter().map(Event::Apply));
                return;
            }
        }
    }
}

/// The first delivery: all objects, a Reset for each kind.
pub(super) fn resets(events: Vec<Event>) -> Vec<Event> {
    let mut kinds: BTreeMap<Kind, Vec<Object>> =
        Kind::ALL.into_iter().map(|kind| (kind, Vec::new())).collect();
    for event in events {
        if let Event::Apply(object) = event {
            let kind = object.key().kind;
            kinds.entry(kind).or_default().push(object);
        }
    }
    kinds.into_iter().map(|(kind, objects)| Event::Reset(kind, objects)).collect()
}

#[cfg(test)]
mod tests;
