//! From environment and standard input to standard output and exit code.

use std::io::Read;

use serde_json::json;

use crate::{
    add, check,
    config::Document,
    del, gc,
    request::{Command, Request},
    spec::{Code, Failure, Version},
    status,
};

/// What the process writes, and the code with which it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// For the runtime.
    pub stdout: String,
    /// For people.
    pub stderr: String,
    /// 0 for success, 1 for a failure, which is on `stdout` as JSON; 2 for wrong usage by a person.
    pub code: u8,
}

/// Answers a person's argument: `--help` or `--version`.
pub fn explain(argument: &str) -> Output {
    let version = env!("CARGO_PKG_VERSION");
    let (text, code) = match argument {
        "--version" | "-V" => (format!("portolan-cni {version}\n"), 0),
        "--help" | "-h" => (help(), 0),
        other => (format!("portolan-cni: {other:?} is not an argument: expected --help or --version\n"), 2),
    };
    if code == 0 {
        Output { stdout: text, stderr: String::new(), code }
    } else {
        Output { stdout: String::new(), stderr: text, code }
    }
}

fn help() -> String {
    format!(
        "portolan-cni gives a pod an interface and addresses of the node's pod CIDRs.\n\n\
         It is a CNI plugin: a container runtime calls it with CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION) and\n\
         the other CNI_* variables in its environment, and a network configuration on standard input:\n\n  \
         {{\"cniVersion\": \"1.1.0\", \"name\": \"portolan\", \"type\": \"portolan-cni\",\n   \
         \"podCIDRs\": [\"10.244.1.0/24\", \"fd44:0:0:1::/64\"], \"mtu\": 1500, \"bpffs\": \"/sys/fs/bpf\"}}\n\n\
         The daemon `portolan` writes that configuration. `portolan pods` lists what the plugin has attached.\n\
         Versions of the CNI specification: {}.\n\n\
         Options:\n  -h, --help     this text\n  -V, --version  the version\n",
        Version::list()
    )
}

/// Carries out the request that the environment (`get`) and `stdin` describe.
pub fn run(get: impl Fn(&str) -> Option<String>, mut stdin: impl Read) -> Output {
    let request = match Request::read(get) {
        Ok(Some(request)) => request,
        Ok(None) => return about(),
        Err(failure) => return failed(&failure, Version::NEWEST),
    };
    let mut input = Vec::new();
    if let Err(error) = stdin.read_to_end(&mut input) {
        let failure = Failure::new(Code::Io, format!("cannot read standard input: {error}"));
        return failed(&failure, Version::NEWEST);
    }
    if request.command == Command::Version {
        return version(&input);
    }
    let document = match Document::parse(&input) {
        Ok(document) => document,
        Err(failure) => return failed(&failure, Version::NEWEST),
    };
    let version = match document.version() {
        Ok(version) => version,
        Err(failure) => return failed(&failure, Version::NEWEST),
    };
    match dispatch(&request, &document, version) {
        Ok(stdout) => Output { stdout, stderr: String::new(), code: 0 },
        Err(failure) => failed(&failure, version),
    }
}

fn dispatch(request: &Request, document: &Document, version: Version) -> Result<String, Failure> {
    let since = request.command.since();
    if version < since {
        let message = format!(
            "{:?} exists since version {since} of the specification, and cniVersion is {version}",
            request.command
        );
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    match request.command {
        Command::Add => add::add(request, document, version),
        Command::Del => del::del(request, document).map(|()| String::new()),
        Command::Check => check::check(request, document).map(|()| String::new()),
        Command::Gc => gc::gc(document).map(|()| String::new()),
        Command::Status => status::status(document).map(|()| String::new()),
        Command::Version => Ok(String::new()),
    }
}

/// Answers VERSION with the version that was asked in; the input may hold nothing else, or nothing.
fn version(input: &[u8]) -> Output {
    let document = Document::parse(input).ok();
    let asked = document.as_ref().and_then(|document| Version::parse(document.version_text()));
    let answer = json!({
        "cniVersion": asked.unwrap_or(Version::NEWEST).as_str(),
        "supportedVersions": Version::ALL.map(Version::as_str),
    });
    Output { stdout: format!("{answer}\n"), stderr: String::new(), code: 0 }
}

fn about() -> Output {
    let version = env!("CARGO_PKG_VERSION");
    let stderr = format!(
        "portolan-cni {version}: a CNI plugin; it speaks versions {}. See --help.\n",
        Version::list()
    );
    Output { stdout: String::new(), stderr, code: 0 }
}

fn failed(failure: &Failure, version: Version) -> Output {
    Output { stdout: failure.render(version), stderr: String::new(), code: 1 }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn call(command: &str, input: &str) -> (Value, u8) {
        let output = run(|name| (name == "CNI_COMMAND").then(|| command.to_owned()), input.as_bytes());
        (serde_json::from_str(&output.stdout).unwrap(), output.code)
    }

    #[test]
    fn version_answers_in_the_version_that_asks() {
        for (input, expected) in
            [(r#"{"cniVersion": "0.4.0"}"#, "0.4.0"), (r#"{"cniVersion": "9.0.0"}"#, "1.1.0"), ("", "1.1.0")]
        {
            let (answer, code) = call("VERSION", input);
            assert_eq!((code, &answer["cniVersion"]), (0, &json!(expected)));
            assert_eq!(answer["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        }
    }

    #[test]
    fn commands_are_refused_in_versions_that_do_not_have_them() {
        for (command, version) in [("GC", "1.0.0"), ("STATUS", "1.0.0"), ("STATUS", "0.2.0"), ("GC", "")] {
            let (answer, code) = call(command, &json!({"cniVersion": version}).to_string());
            assert_eq!((code, &answer["code"]), (1, &json!(1)), "{command} {version}");
        }
    }

    #[test]
    fn failures_are_json_in_the_version_of_the_configuration() {
        let (answer, code) = call("ADD", "{}");
        assert_eq!((code, &answer["code"], &answer["cniVersion"]), (1, &json!(4), &json!("1.1.0")));
        let (answer, code) = call("GC", "no json");
        assert_eq!((code, &answer["code"]), (1, &json!(6)));
    }

    #[test]
    fn people_are_answered() {
        assert_eq!(run(|_| None, std::io::empty()).code, 0);
        assert!(run(|_| None, std::io::empty()).stderr.contains("1.1.0"));
        assert_eq!((explain("--help").code, explain("--version").code, explain("ADD").code), (0, 0, 2));
    }
}
