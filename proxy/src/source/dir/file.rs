//! A file of manifests into pieces: one per document, per item of a list.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::manifest::{self, Outcome};
use super::yaml;

/// A manifest of a file.
#[derive(Debug)]
pub(super) struct Piece {
    /// The line of the file in which it begins, from 1.
    pub(super) line: usize,
    /// A hash of its text: while it stays the same, so does what the piece defines.
    pub(super) hash: u64,
    /// What it defines; `None`: what it defined when it had this hash before.
    pub(super) outcome: Option<Outcome>,
}

/// A part of a file that is no manifest at all, so that nobody can say what it was meant to define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The line; `None`: the whole file.
    pub(super) line: Option<usize>,
    pub(super) why: String,
}

/// Who reads a file.
pub(super) trait Reader {
    /// Whether what a piece with this hash defines is known, so that it need not be read.
    fn knows(&self, hash: u64) -> bool;
    /// Takes a piece.
    fn piece(&mut self, piece: Piece);
    /// Takes notice of a broken part.
    fn broken(&mut self, broken: Broken);
}

/// Whether a file of this name is one of manifests: not hidden, no editor's lock or backup.
pub(super) fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with(['.', '#'])
}

/// Reads a file piece by piece: of YAML no more than a document is in memory at a time.
///
/// # Errors
/// What the system says when it cannot be read.
pub(super) fn read(path: &Path, reader: &mut impl Reader) -> io::Result<()> {
    let mut file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        read_json(&text, reader);
        Ok(())
    } else {
        read_yaml(BufReader::new(file), reader)
    }
}

/// Reads YAML documents. One begins at a line `---` or after a line `...`: neither can stand in a document (YAML
/// 1.2.2 §9.1.2), so a broken one never hides the next.
pub(super) fn read_yaml(mut input: impl BufRead, reader: &mut impl Reader) -> io::Result<()> {
    let mut text = Vec::new();
    let mut line = Vec::new();
    let (mut first, mut number) = (1, 0);
    loop {
        line.clear();
        let end = input.read_until(b'\n', &mut line)? == 0;
        number += 1;
        let (begins, ends) = (is_marker(&line, b"---"), is_marker(&line, b"..."));
        if end || begins || ends {
            document(&text, first, reader);
            text.clear();
            first = number;
        }
        if end {
            return Ok(());
        }
        if ends {
            first = number + 1;
        } else {
            text.extend_from_slice(&line);
        }
    }
}

fn is_marker(line: &[u8], marker: &[u8; 3]) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

/// Reads a YAML document whose text begins in the line `first` of its file.
fn document(text: &[u8], first: usize, reader: &mut impl Reader) {
    let Ok(text) = str::from_utf8(text) else {
        let why = "the document is not UTF-8".into();
        return reader.broken(Broken { line: Some(first), why });
    };
    let Some(blank) = text.lines().position(|line| !is_blank(line)) else { return };
    let hash = hash(text);
    if reader.knows(hash) {
        return reader.piece(Piece { line: first + blank, hash, outcome: None });
    }
    let mut listed = false;
    let mut item = |line: usize, item: Value| {
        listed = true;
        let hash = self::hash(&item);
        let outcome = (!reader.knows(hash)).then(|| manifest::from_value(item, None));
        reader.piece(Piece { line: first + line - 1, hash, outcome });
    };
    match yaml::parse(text, &mut item) {
        Err(yaml::Malformed { line, why }) => reader.broken(Broken { line: Some(first + line - 1), why }),
        Ok(Some((line, value))) if !listed && !value.is_null() => {
            let outcome = match manifest::from_value(value, Some(text)) {
                Outcome::Rejected { id, line: Some(at), why } => {
                    Outcome::Rejected { id, line: Some((at + 1).saturating_sub(line)), why }
                }
                outcome @ (Outcome::Foreign | Outcome::Objects { .. } | Outcome::Rejected { .. }) => outcome,
            };
            reader.piece(Piece { line: first + line - 1, hash, outcome: Some(outcome) });
        }
        Ok(_) => {}
    }
}

/// A line that belongs to no document by itself: nothing, a comment, a directive, a marker.
fn is_blank(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    line.is_empty() || line == "---" || line.starts_with(['#', '%'])
}

/// A list, as `kubectl get -o json` prints it.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Reads JSON documents, one after another.
pub(super) fn read_json(text: &[u8], reader: &mut impl Reader) {
    let mut lines = Lines { text, at: 0, line: 1 };
    for document in serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>() {
        let document = match document {
            Ok(document) => document,
            Err(error) => return reader.broken(Broken { line: Some(error.line()), why: error.to_string() }),
        };
        match serde_json::from_str(document.get()) {
            Ok(List { items: Some(items) }) => {
                for item in items {
                    json(item.get(), &mut lines, reader);
                }
            }
            Ok(List { items: None }) | Err(_) => json(document.get(), &mut lines, reader),
        }
    }
}

fn json(text: &str, lines: &mut Lines<'_>, reader: &mut impl Reader) {
    let hash = hash(text);
    let outcome = (!reader.knows(hash)).then(|| manifest::from_json(text));
    reader.piece(Piece { line: lines.of(text), hash, outcome });
}

/// Counts lines, forwards only.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line in which `part`, a part of the text after those asked for before, begins.
    fn of(&mut self, part: &str) -> usize {
        let offset = part.as_ptr().addr() - self.text.as_ptr().addr();
        self.line += self.text[self.at..offset].iter().filter(|c| **c == b'\n').count();
        self.at = offset;
        self.line
    }
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
