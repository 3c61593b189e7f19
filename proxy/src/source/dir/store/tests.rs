//! Files in, events and reports out.

use super::super::file::read_yaml;
use super::*;

/// A directory in memory.
#[derive(Default)]
struct Dir {
    store: Store,
    files: BTreeMap<String, String>,
}

impl Dir {
    /// Writes files, or removes those without a text, at once; shows the events and the reports.
    fn write(&mut self, changes: &[(&str, Option<String>)]) -> Vec<String> {
        let (mut readings, mut gone) = (Vec::new(), Vec::new());
        for (name, text) in changes {
            let name = (*name).to_owned();
            if let Some(text) = text {
                let mut reading = self.store.reading(&name);
                read_yaml(text.as_bytes(), &mut reading).unwrap();
                readings.push(reading);
                self.files.insert(name, text.clone());
            } else {
                self.files.remove(&name);
                gone.push(name);
            }
        }
        let load = |name: &str, versions: &BTreeSet<Version>| {
            let mut reading = Store::default().reading(name);
            read_yaml(self.files[name].as_bytes(), &mut reading).unwrap();
            reading.fresh.retain(|version, _| versions.contains(version));
            reading.fresh
        };
        let events = self.store.update(readings, &gone, load);
        let reports = self.store.reports();
        events.into_iter().map(Notice::Event).chain(reports).map(|notice| show(&notice)).collect()
    }

    fn put(&mut self, name: &str, text: impl Into<String>) -> Vec<String> {
        self.write(&[(name, Some(text.into()))])
    }
}

fn show(notice: &Notice) -> String {
    match notice {
        Notice::Event(Event::Apply(Object::Service(service))) => {
            format!("apply {} {}", service.name.name, service.ports[0].port)
        }
        Notice::Event(Event::Apply(object)) => format!("apply {}", object.key()),
        Notice::Event(Event::Delete(key)) => format!("delete {}", key.name.name),
        Notice::Event(Event::Reset(kind, objects)) => format!("reset {kind} {}", objects.len()),
        Notice::Rejected { what, why } => format!("rejected {what} {why}"),
        Notice::Accepted { what } => format!("accepted {what}"),
        Notice::Started => "started".to_owned(),
        Notice::Health(health) => format!("health {health:?}"),
    }
}

/// A Service of nine lines.
fn service(name: &str, port: impl std::fmt::Display) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n  - port: {port}\n"
    )
}

fn endpoints(subsets: &[&str]) -> String {
    let subset = |ip: &&str| format!("- addresses: [{{ip: {ip}}}]\n  ports: [{{port: 80}}]\n");
    let subsets: String = subsets.iter().map(subset).collect();
    format!("apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets:\n{subsets}")
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_differences_are_told() {
    let mut dir = Dir::default();
    assert_eq!(dir.put("a", service("x", 1) + &service("y", 1)), ["apply x 1", "apply y 1"]);
    assert_eq!(dir.put("a", service("x", 1) + &service("y", 1)), NOTHING);
    assert_eq!(dir.put("a", "# comment\n".to_owned() + &service("y", 1) + &service("x", 1)), NOTHING);
    assert_eq!(dir.put("a", service("x", 2) + &service("y", 1)), ["apply x 2"]);
    assert_eq!(dir.put("a", service("x", 2) + &service("z", 1)), ["apply z 1", "delete y"]);
    assert_eq!(dir.write(&[("a", None)]), ["delete x", "delete z"]);
    assert_eq!(dir.write(&[("a", None)]), NOTHING);
}

#[test]
fn the_first_definition_is_in_force() {
    let mut dir = Dir::default();
    assert_eq!(dir.put("b", service("x", 2)), ["apply x 2"]);
    let second = "Service default/x is defined in a:2 already, this definition is not used";
    assert_eq!(dir.put("a", service("x", 1)), ["apply x 1".to_owned(), format!("rejected b:2 {second}")]);
    assert_eq!(dir.put("b", service("x", 3)), NOTHING, "not in force");
    assert_eq!(dir.put("c", service("x", 4)), [format!("rejected c:2 {second}")]);
    assert_eq!(
        dir.write(&[("a", None)]),
        [
            "apply x 3".to_owned(),
            "accepted b:2".to_owned(),
            format!("rejected c:2 {}", second.replace("a:2", "b:2"))
        ]
    );
    assert_eq!(dir.write(&[("c", None)]), ["accepted c:2"]);
    assert_eq!(dir.write(&[("b", None)]), ["delete x"]);
}

#[test]
fn a_definition_moves_between_files_without_a_gap() {
    let mut dir = Dir::default();
    dir.put("a", service("x", 1));
    assert_eq!(dir.write(&[("a", None), ("b", Some(service("x", 1)))]), NOTHING);
    assert_eq!(dir.write(&[("b", None), ("a", Some(service("x", 2)))]), ["apply x 2"]);
}

#[test]
fn twice_in_a_file() {
    let mut dir = Dir::default();
    let second = "Service default/x is defined in a:2 already, this definition is not used";
    let text = service("x", 1) + &service("x", 2);
    assert_eq!(dir.put("a", text), ["apply x 1".to_owned(), format!("rejected a:11 {second}")]);
    assert_eq!(dir.put("a", service("x", 2)), ["apply x 2", "accepted a:11"]);
}

#[test]
fn a_rejected_manifest_leaves_its_last_good_version() {
    let mut dir = Dir::default();
    let why = "Service default/x: spec.ports[0]: port 0 is not in 1..65535";
    assert_eq!(dir.put("a", service("x", 0)), [format!("rejected a:2 {why}")]);
    assert_eq!(dir.put("a", service("x", 1)), ["apply x 1", "accepted a:2"]);
    let moved = format!("\n{}", service("x", 0));
    assert_eq!(
        dir.put("a", moved.clone() + &service("y", 1)),
        ["apply y 1".to_owned(), format!("rejected a:3 {why}")]
    );
    assert_eq!(
        dir.put("a", moved.clone() + &service("y", 2)),
        ["apply y 2"],
        "known to be bad, still in force"
    );
    assert_eq!(dir.put("a", service("y", 2)), ["delete x", "accepted a:3"]);
}

#[test]
fn a_rejected_manifest_without_a_good_version_does_not_hide_another_files() {
    let mut dir = Dir::default();
    dir.put("a", service("x", 0));
    assert_eq!(dir.put("b", service("x", 2)), ["apply x 2"]);
}

#[test]
fn a_wrong_type_is_reported_where_it_stands() {
    let shown = Dir::default().put("a", service("x", "http"));
    assert!(
        shown[0].starts_with("rejected a:9 Service default/x: invalid type: string \"http\""),
        "{shown:?}"
    );
}

#[test]
fn a_broken_file_leaves_all_it_may_have_defined() {
    let mut dir = Dir::default();
    dir.put("a", service("x", 1) + &service("y", 1));
    let shown = dir.put("a", service("x", 2) + "---\nkind: [\n");
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(shown[0], "apply x 2");
    assert!(shown[1].starts_with("rejected a:1"), "{shown:?}");
    let shown = dir.put("a", "{");
    assert_eq!(shown.len(), 2, "another line is broken, nothing else: {shown:?}");
    let shown = dir.put("a", service("y", 1));
    assert_eq!(shown[0], "delete x");
    assert!(shown[1].starts_with("accepted a:"), "{shown:?}");
    assert_eq!(shown.len(), 2, "y is as it was: {shown:?}");
}

#[test]
fn slices_of_endpoints_come_and_go() {
    let mut dir = Dir::default();
    let slice = |n: usize| format!("apply EndpointSlice default/db-endpoints-{n}");
    assert_eq!(dir.put("a", endpoints(&["192.0.2.1", "192.0.2.2"])), [slice(0), slice(1)]);
    assert_eq!(dir.put("a", endpoints(&["192.0.2.2"])), [slice(0), "delete db-endpoints-1".to_owned()]);
    assert_eq!(dir.put("a", endpoints(&[])), ["delete db-endpoints-0"]);
    assert_eq!(dir.put("a", endpoints(&["192.0.2.3"])), [slice(0)]);
    assert_eq!(dir.write(&[("a", None)]), ["delete db-endpoints-0"]);
}

#[test]
fn warnings_are_reports_of_what_is_in_force() {
    let mut dir = Dir::default();
    let text = service("x", 1).replace("spec:", "spec:\n  externalIPs: [127.0.0.1]");
    let why = "Service default/x: spec.externalIPs: 127.0.0.1 is a loopback address";
    assert_eq!(dir.put("a", text), ["apply x 1".to_owned(), format!("rejected a:2 {why}")]);
    assert_eq!(dir.put("a", service("x", 1)), ["apply x 1", "accepted a:2"]);
}

#[test]
fn the_first_delivery_resets_every_kind() {
    let mut dir = Dir::default();
    let mut reading = dir.store.reading("a");
    read_yaml(service("x", 1).as_bytes(), &mut reading).unwrap();
    let events = dir.store.update(vec![reading], &[], |_, _| Fresh::new());
    let shown: Vec<String> = resets(events).into_iter().map(|event| show(&Notice::Event(event))).collect();
    assert_eq!(shown, ["reset Service 1", "reset EndpointSlice 0", "reset Node 0", "reset ServiceCIDR 0"]);
}
