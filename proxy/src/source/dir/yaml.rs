//! A YAML document into a JSON value, as `sigs.k8s.io/yaml` does for the API: YAML 1.2 core schema, anchors, aliases
//! and merge keys; duplicate keys are errors.
//!
//! Built on the events of serde-saphyr's own parser: its Serde front end takes more than twice as long, which is the
//! larger half of a cold start from manifests.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Tag};

/// How many values aliases may add to a document before it counts as an attack.
const ALIASED_MAX: usize = 100_000;

/// Why a text is no document, and where: lines count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) why: String,
}

/// The document in `text` and the line of its first node; `None` when there is none. The elements of a sequence
/// `items` at its top are handed to `item`, each with its line, and are not in the document: a list of everything in
/// a cluster never stands in memory as a whole.
pub(super) fn parse(
    text: &str,
    item: &mut dyn FnMut(usize, Value),
) -> Result<Option<(usize, Value)>, Malformed> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut builder = Builder { item, open: Vec::new(), anchors: BTreeMap::new(), aliased: 0, root: None };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            event.map_err(|error| Malformed { line: error.marker().line(), why: error.info() })?;
        let line = span.start.line();
        builder.event(event, line).map_err(|why| Malformed { line, why })?;
    }
    Ok(builder.root)
}

struct Builder<'a> {
    item: &'a mut dyn FnMut(usize, Value),
    /// The collections that are not closed yet, outermost first.
    open: Vec<Open>,
    anchors: BTreeMap<usize, Value>,
    aliased: usize,
    root: Option<(usize, Value)>,
}

struct Open {
    line: usize,
    anchor: usize,
    collection: Collection,
}

enum Collection {
    Sequence(Vec<Value>),
    Mapping {
        entries: Map<String, Value>,
        /// The key whose value comes next.
        key: Option<String>,
        /// The values of `<<`.
        merged: Vec<Value>,
    },
}

impl Builder<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events say nothing about values")]
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(text, style, tag.as_deref(), Node { line, anchor })
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { line, anchor, collection: Collection::Sequence(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                let collection = Collection::Mapping { entries: Map::new(), key: None, merged: Vec::new() };
                self.open.push(Open { line, anchor, collection });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, line),
            Event::DocumentStart(..) if self.root.is_some() => Err("a second document without ---".into()),
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        node: Node,
    ) -> Result<(), String> {
        if let Some(Open { collection: Collection::Mapping { key: key @ None, .. }, .. }) =
            self.open.last_mut()
        {
            *key = Some(text.into_owned());
            return Ok(());
        }
        let string = match tag {
            Some(tag) => tag.is_yaml_core_schema_tag("str") || tag.is_custom(),
            None => style != ScalarStyle::Plain,
        };
        let value = if string { Value::String(text.into_owned()) } else { plain(text) };
        self.value(value, node)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), String> {
        let value = self.anchors.get(&anchor).cloned().ok_or("an alias inside of what it names")?;
        self.aliased += weight(&value);
        if self.aliased > ALIASED_MAX {
            return Err(format!("aliases add more than {ALIASED_MAX} values"));
        }
        self.value(value, Node { line, anchor: 0 })
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(Open { line, anchor, collection }) = self.open.pop() else {
            return Err("an end without a beginning".into());
        };
        let value = match collection {
            Collection::Sequence(values) => Value::Array(values),
            Collection::Mapping { mut entries, merged, .. } => {
                merged.into_iter().for_each(|value| merge(&mut entries, value));
                Value::Object(entries)
            }
        };
        self.value(value, Node { line, anchor })
    }

    /// Puts a complete value where it belongs.
    fn value(&mut self, value: Value, node: Node) -> Result<(), String> {
        if node.anchor != 0 {
            self.anchors.insert(node.anchor, value.clone());
        }
        if self.open.len() == 2 && self.in_items() {
            (self.item)(node.line, value);
            return Ok(());
        }
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some((node.line, value)),
            Some(Collection::Sequence(values)) => values.push(value),
            Some(Collection::Mapping { entries, key, merged }) => match key.take() {
                None => return Err("a mapping key that is no scalar".into()),
                Some(key) if key == "<<" && is_mergeable(&value) => merged.push(value),
                Some(key) if key == "<<" => return Err("<< names no mapping".into()),
                Some(key) => {
                    if entries.contains_key(&key) {
                        return Err(format!("key {key:?} is there twice"));
                    }
                    entries.insert(key, value);
                }
            },
        }
        Ok(())
    }

    /// Whether the two open collections are the document and its `items`.
    fn in_items(&self) -> bool {
        matches!(
            self.open.as_slice(),
            [
                Open { collection: Collection::Mapping { key: Some(key), .. }, .. },
                Open { collection: Collection::Sequence(_), .. },
            ] if key == "items"
        )
    }
}

/// Where a value begins, and the anchor that it defines; 0 for none.
struct Node {
    line: usize,
    anchor: usize,
}

fn weight(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => entries.values().map(weight).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A mapping, or a sequence of mappings.
fn is_mergeable(value: &Value) -> bool {
    value.is_object() || value.as_array().is_some_and(|values| values.iter().all(Value::is_object))
}

/// Adds what `<<` names; an entry that is there already stays.
fn merge(entries: &mut Map<String, Value>, value: Value) {
    match value {
        Value::Object(more) => more.into_iter().for_each(|(key, value)| {
            entries.entry(key).or_insert(value);
        }),
        Value::Array(values) => values.into_iter().for_each(|value| merge(entries, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A plain scalar by the core schema (YAML 1.2.2 §10.3.2). A decimal number with leading zeros, which is octal in
/// YAML 1.1 and decimal in 1.2, stays a string: where a number is expected it is an error then, not a guess.
fn plain(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        plain => number(plain).map_or_else(|| Value::String(text.into_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    let float = text.bytes().all(|c| c.is_ascii_digit() || b"+-.eE".contains(&c));
    float.then(|| text.parse().ok().and_then(Number::from_f64)).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(text: &str) -> Result<Value, Malformed> {
        parse(text, &mut |line, item| panic!("item in line {line}: {item}")).map(|root| root.unwrap().1)
    }

    #[test]
    fn agrees_with_the_serde_front_end() {
        for text in [
            "a: 1\nb: [x, 'y', \"z\\n\", 1.5, -3, true, ~, null, '']\nc: {d: e, f: {}}\n",
            "- a\n-\n  - b\n  - - c\n- ? k\n  : v\n",
            "text: |\n  one\n  two\nfolded: >-\n  one\n  two\nplain: one\n  two\n",
            "addr: 10.0.0.1\nv6: fd00::1\nquoted: '8080'\nport: 8080\ncidr: 10.0.0.0/8\n",
            "a: &x {k: 1}\nb: *x\nc: [*x, *x]\n",
            "a: &x {k: 1, l: 2}\nb:\n  <<: *x\n  l: 3\n",
            "--- # start\nkey: value # comment\n",
            "{\"json\": [1, 2.5, \"s\", null, true]}",
            "hex: 0x1F\noct: 0o17\nexp: 1e3\nneg: -5\nplus: +5\n",
            "time: 2024-01-02T03:04:05Z\nversion: 1.2.3\n",
        ] {
            let expected: Value = serde_saphyr::from_str(text).unwrap();
            assert_eq!(document(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn strings_that_look_like_something_else() {
        for (text, expected) in [
            ("010", json!("010")),
            ("0", json!(0)),
            ("yes", json!("yes")),
            ("!!str 80", json!("80")),
            ("!!int '80'", json!(80)),
            (".inf", json!(".inf")),
            ("nan", json!("nan")),
            ("-", json!("-")),
            ("1_000", json!("1_000")),
            ("18446744073709551615", json!(u64::MAX)),
        ] {
            let text = format!("k: {text}");
            if text != "k: -" {
                assert_eq!(document(&text).unwrap()["k"], expected, "{text}");
            }
        }
    }

    #[test]
    fn items_come_one_by_one_with_their_lines() {
        let mut items = Vec::new();
        let text = "apiVersion: v1\nitems:\n- a: 1\n\n- b:\n  - 2\n- c\nkind: List\n";
        let root = parse(text, &mut |line, item| items.push((line, item))).unwrap().unwrap();
        assert_eq!(items, [(3, json!({ "a": 1 })), (5, json!({ "b": [2] })), (7, json!("c"))]);
        assert_eq!(root, (1, json!({ "apiVersion": "v1", "items": [], "kind": "List" })));
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "\n", "# comment\n"] {
            assert_eq!(parse(text, &mut |_, _| ()), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn errors_say_the_line() {
        for (text, line, why) in [
            ("a: 1\nb: 2\na: 3\n", 3, "key \"a\" is there twice"),
            ("a: 1\nb: *x\n", 2, ""),
            ("a: 1\n<<: 5\n", 1, "<< names no mapping"),
            ("a: [1\nb: 2\n", 2, ""),
            ("a: 1\n  b: 2\n", 2, ""),
            ("? [a]\n: b\n", 1, "a mapping key that is no scalar"),
        ] {
            let malformed = document(text).unwrap_err();
            assert!(malformed.why.contains(why), "{text:?}: {malformed:?}");
            assert!(malformed.line >= line && malformed.line <= line + 1, "{text:?}: {malformed:?}");
        }
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let alias = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        assert!(document(&text).unwrap_err().why.starts_with("aliases add more than"));
    }
}
