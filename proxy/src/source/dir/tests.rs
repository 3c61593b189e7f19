//! Real directories, real inotify.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use portolan_core::event::Event;
use portolan_core::object::Object;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// How long a notice may take; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that is being delivered.
struct Watched {
    parent: TempDir,
    notices: mpsc::Receiver<Notice>,
}

impl Watched {
    /// Starts with these files.
    fn start(files: &[(&str, &str)]) -> Self {
        let parent = TempDir::new().unwrap();
        let dir = parent.path().join("manifests");
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let (sender, notices) = mpsc::channel(64);
        tokio::spawn(run(dir, sender));
        Self { parent, notices }
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join("manifests")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir().join(name), text).unwrap();
    }

    async fn next(&mut self) -> String {
        let notice = tokio::time::timeout(PATIENCE, self.notices.recv()).await.expect("a notice in time");
        show(notice.expect("the source goes on"))
    }

    async fn resets(&mut self) -> [String; 4] {
        [self.next().await, self.next().await, self.next().await, self.next().await]
    }

    /// Nothing but what a marker brings is told: whatever came before it had no effect.
    async fn nothing_until(&mut self, marker: &str) {
        self.write("zz-marker.yaml", &node(marker));
        assert_eq!(self.next().await, format!("apply {marker}"));
    }
}

fn show(notice: Notice) -> String {
    let name = |object: &Object| object.key().name.name.to_string();
    match notice {
        Notice::Event(Event::Apply(object)) => format!("apply {}", name(&object)),
        Notice::Event(Event::Delete(key)) => format!("delete {}", key.name.name),
        Notice::Event(Event::Reset(kind, objects)) => {
            let names: Vec<String> = objects.iter().map(name).collect();
            format!("reset {kind} {}", names.join(" "))
        }
        Notice::Started => "started".to_owned(),
        Notice::Rejected { what, .. } => format!("rejected {what}"),
        Notice::Accepted { what } => format!("accepted {what}"),
        Notice::Health(health) => format!("health {}", if health.is_some() { "failing" } else { "good" }),
    }
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n")
}

#[tokio::test]
async fn everything_first_then_the_differences() {
    let mut watched = Watched::start(&[
        ("a.yaml", &node("n1")),
        ("b.json", r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"n2"}}"#),
    ]);
    let resets = watched.resets().await;
    assert_eq!(resets, ["reset Service ", "reset EndpointSlice ", "reset Node n1 n2", "reset ServiceCIDR "]);
    watched.write("c.yml", &node("n3"));
    assert_eq!(watched.next().await, "apply n3");
    watched.write("a.yaml", &(node("n1") + "---\n" + &node("n4")));
    assert_eq!(watched.next().await, "apply n4");
    fs::remove_file(watched.dir().join("b.json")).unwrap();
    assert_eq!(watched.next().await, "delete n2");
    fs::rename(watched.dir().join("c.yml"), watched.parent.path().join("c.yml")).unwrap();
    assert_eq!(watched.next().await, "delete n3");
}

#[tokio::test]
async fn files_are_replaced_by_rename() {
    let mut watched = Watched::start(&[("a.yaml", &node("n1"))]);
    watched.resets().await;
    watched.write(".a.yaml.tmp", &node("n2"));
    watched.write("4913", "");
    watched.write("a.yaml~", &node("n9"));
    fs::rename(watched.dir().join(".a.yaml.tmp"), watched.dir().join("a.yaml")).unwrap();
    assert_eq!((watched.next().await, watched.next().await), ("apply n2".into(), "delete n1".into()));
}

#[tokio::test]
async fn a_file_is_read_when_it_is_closed() {
    let mut watched = Watched::start(&[("a.yaml", &(node("n1") + "---\n" + &node("n2")))]);
    watched.resets().await;
    let mut file = fs::File::create(watched.dir().join("a.yaml")).unwrap();
    file.write_all(node("n1").as_bytes()).unwrap();
    file.flush().unwrap();
    watched.nothing_until("half").await;
    file.write_all(b"---\n").unwrap();
    file.write_all(node("n3").as_bytes()).unwrap();
    drop(file);
    assert_eq!((watched.next().await, watched.next().await), ("apply n3".into(), "delete n2".into()));
}

#[tokio::test]
async fn a_broken_file_is_reported_until_it_is_mended() {
    let mut watched = Watched::start(&[("a.yaml", &node("n1"))]);
    watched.resets().await;
    watched.write("a.yaml", "apiVersion: v1\nkind: [\n");
    let rejected = watched.next().await;
    assert!(rejected.starts_with("rejected a.yaml:"), "{rejected}");
    watched.nothing_until("still").await;
    watched.write("a.yaml", &node("n1"));
    assert_eq!(watched.next().await, rejected.replace("rejected", "accepted"));
}

#[tokio::test]
async fn the_directory_goes_and_comes_back() {
    let mut watched = Watched::start(&[("a.yaml", &node("n1")), ("b.yaml", &node("n2"))]);
    watched.resets().await;
    let away = watched.parent.path().join("away");
    fs::rename(watched.dir(), &away).unwrap();
    assert_eq!(watched.next().await, "health failing");
    fs::remove_file(away.join("b.yaml")).unwrap();
    fs::write(away.join("c.yaml"), node("n3")).unwrap();
    fs::rename(&away, watched.dir()).unwrap();
    assert_eq!(watched.next().await, "health good");
    assert_eq!((watched.next().await, watched.next().await), ("apply n3".into(), "delete n2".into()));
    watched.write("a.yaml", &node("n4"));
    assert_eq!((watched.next().await, watched.next().await), ("apply n4".into(), "delete n1".into()));
}

#[tokio::test]
async fn a_missing_directory_is_waited_for() {
    let parent = TempDir::new().unwrap();
    let (sender, notices) = mpsc::channel(64);
    let dir = parent.path().join("manifests");
    tokio::spawn(run(dir.clone(), sender));
    let mut watched = Watched { parent, notices };
    assert_eq!(watched.next().await, "health failing");
    fs::create_dir(dir).unwrap();
    assert_eq!(watched.next().await, "health good");
    assert_eq!(watched.resets().await[2], "reset Node ");
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_as_a_whole() {
    let mut watched = Watched::start(&[]);
    watched.resets().await;
    let version = |number: u8| format!("..version-{number}");
    let publish = |dir: &Path, number: u8, text: &str| {
        fs::create_dir(dir.join(version(number))).unwrap();
        fs::write(dir.join(version(number)).join("a.yaml"), text).unwrap();
        symlink(version(number), dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    publish(&watched.dir(), 1, &node("n1"));
    symlink("..data/a.yaml", watched.dir().join("a.yaml")).unwrap();
    assert_eq!(watched.next().await, "apply n1");
    publish(&watched.dir(), 2, &node("n2"));
    assert_eq!((watched.next().await, watched.next().await), ("apply n2".into(), "delete n1".into()));
}

#[tokio::test]
async fn many_changes_at_once_lose_nothing() {
    let mut watched = Watched::start(&[]);
    watched.resets().await;
    // More than the queue of the kernel and the channel take, so that both have to wait or overflow.
    const FILES: usize = 3000;
    for n in 0..FILES {
        watched.write(&format!("{n}.yaml"), &node(&format!("n{n}")));
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < FILES {
        seen.insert(watched.next().await);
    }
    assert!(seen.contains("apply n2999"));
}

#[tokio::test]
async fn ends_with_its_receiver() {
    let parent = TempDir::new().unwrap();
    let (sender, receiver) = mpsc::channel(64);
    let task = tokio::spawn(run(parent.path().to_owned(), sender));
    drop(receiver);
    tokio::time::timeout(PATIENCE, task).await.expect("in time").unwrap().unwrap();
}
