//! Texts in, pieces out.

use super::super::manifest::Identity;
use super::*;

/// Collects what a file holds, a line of text for each piece.
#[derive(Default)]
struct Collected {
    known: Vec<u64>,
    hashes: Vec<u64>,
    shown: Vec<String>,
}

impl Reader for Collected {
    fn knows(&self, hash: u64) -> bool {
        self.known.contains(&hash)
    }

    fn piece(&mut self, piece: Piece) {
        let name = |id: Option<Identity>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        let text = match piece.outcome {
            None => "known".to_owned(),
            Some(Outcome::Foreign) => "foreign".to_owned(),
            Some(Outcome::Objects { id, objects, warnings }) => {
                format!("{id} {} {}", objects.len(), warnings.len())
            }
            Some(Outcome::Rejected { id, line, why }) => format!("{} rejected {line:?}: {why}", name(id)),
        };
        self.hashes.push(piece.hash);
        self.shown.push(format!("{}: {text}", piece.line));
    }

    fn broken(&mut self, broken: Broken) {
        self.shown.push(format!("{:?}: broken", broken.line));
    }
}

fn yaml(text: &str) -> Vec<String> {
    let mut collected = Collected::default();
    read_yaml(text.as_bytes(), &mut collected).unwrap();
    collected.shown
}

fn json(text: &str) -> Vec<String> {
    let mut collected = Collected::default();
    read_json(text.as_bytes(), &mut collected);
    collected.shown
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n  - port: 80\n";

#[test]
fn documents() {
    let text = format!(
        "# head\n\n{SERVICE}---\n---\n# nothing\n--- # next\n{SERVICE}...\n%YAML 1.2\n---\n{SERVICE}"
    );
    assert_eq!(
        yaml(&text),
        ["3: Service default/web 1 0", "14: Service default/web 1 0", "24: Service default/web 1 0"]
    );
    assert_eq!(yaml(""), [""; 0]);
    assert_eq!(yaml(&SERVICE.replace('\n', "\r\n")), ["1: Service default/web 1 0"]);
    assert_eq!(yaml(&format!("\u{feff}{SERVICE}")), ["1: Service default/web 1 0"]);
}

#[test]
fn other_kinds_are_foreign() {
    for head in ["apiVersion: apps/v1\nkind: Deployment", "apiVersion: serving.knative.dev/v1\nkind: Service"]
    {
        assert_eq!(yaml(&format!("{head}\nmetadata: {{name: web}}\nspec: 5\n")), ["1: foreign"]);
    }
    assert_eq!(yaml(&SERVICE.replace("10.0.0.1", "None")), ["1: foreign"]);
    assert_eq!(yaml("a: 1\n"), ["1: ? rejected None: no manifest: it has no apiVersion or no kind"]);
}

#[test]
fn a_cluster_ip_must_be_named() {
    let why = "spec.clusterIP is missing: manifests must name it; there is no API server to allocate one";
    for spec in ["", "spec: {ports: [{port: 80}]}", "spec: {clusterIP: '', type: NodePort}"] {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n{spec}\n");
        assert_eq!(yaml(&text), [format!("1: Service default/web rejected None: {why}")]);
    }
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    assert_eq!(yaml(&format!("{text}spec: {{type: ExternalName, externalName: x}}\n")), ["1: foreign"]);
    let several = "spec: {clusterIPs: [10.0.0.1], ports: [{port: 80}]}";
    assert_eq!(yaml(&format!("{text}{several}\n")), ["1: Service default/web 1 0"]);
}

#[test]
fn a_broken_document_does_not_hide_the_others() {
    let text = format!("{SERVICE}---\nkind: [\n---\n{SERVICE}");
    let shown = yaml(&text);
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert_eq!(shown[0], "1: Service default/web 1 0");
    assert!(["Some(9): broken", "Some(10): broken"].contains(&shown[1].as_str()), "{shown:?}");
    assert_eq!(shown[2], "11: Service default/web 1 0");
    let mut collected = Collected::default();
    read_yaml(&b"\xff\n---\n"[..], &mut collected).unwrap();
    assert_eq!(collected.shown, ["Some(1): broken"]);
}

#[test]
fn a_wrong_type_is_found_in_its_line() {
    let text = format!("---\n\n{}", SERVICE.replace("port: 80", "port: http"));
    let shown = yaml(&text);
    assert!(
        shown[0].starts_with("3: Service default/web rejected Some(7): invalid type: string \"http\""),
        "{shown:?}"
    );
}

#[test]
fn items_of_lists() {
    let text =
        "apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n1}\n- {}\nkind: List\n";
    assert_eq!(
        yaml(text),
        ["3: Node n1 1 0", "6: ? rejected None: no manifest: it has no apiVersion or no kind"]
    );
    let text = r#"{"kind": "List", "apiVersion": "v1", "items": [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
        {"apiVersion": "v1", "kind": "Node",
         "metadata": {"name": "n2"}, "spec": {"podCIDRs": 5}}
    ]}
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n3"}}"#;
    let shown = json(text);
    assert_eq!((shown[0].as_str(), shown[2].as_str()), ("2: Node n1 1 0", "6: Node n3 1 0"));
    assert!(shown[1].starts_with("3: Node n2 rejected Some(2): invalid type: integer"), "{shown:?}");
    assert_eq!(json("{\"kind\": [\n}"), ["Some(2): broken"]);
}

#[test]
fn known_texts_are_not_read_again() {
    let text = format!("{SERVICE}---\n{}", SERVICE.replace("web", "other"));
    let mut first = Collected::default();
    read_yaml(text.as_bytes(), &mut first).unwrap();
    let mut second = Collected { known: vec![first.hashes[0]], ..Collected::default() };
    read_yaml(format!("\n{text}").as_bytes(), &mut second).unwrap();
    assert_eq!(second.hashes[1], first.hashes[1]);
    assert_eq!(second.shown[1], "10: Service default/other 1 0");
}

#[test]
fn names_of_files() {
    for name in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
        assert!(is_manifest(name), "{name}");
    }
    for name in
        ["a", "4913", ".a.yaml", ".a.yaml.swp", "a.yaml~", "#a.yaml#", "#a.yaml", ".#a.yaml", "a.yaml.tmp"]
    {
        assert!(!is_manifest(name), "{name}");
    }
}
