//! The environment of a request: the `CNI_*` variables.

use crate::{
    attachment::Key,
    spec::{Code, Failure, Version},
};

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// The version of the specification that brought the command.
    pub(crate) const fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Version => Version::V0_3_1,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }

    /// Which variables it must have ("Parameters" of the specification, and each command's "Inputs").
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// The variables, valid as far as the command needs them; empty where they are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// `CNI_ARGS`, as it is.
    pub(crate) args: String,
    /// `CNI_NETNS_OVERRIDE`: the pod may be in the plugin's own namespace.
    pub(crate) netns_override: bool,
}

impl Request {
    /// Reads the variables; `None` if there is no `CNI_COMMAND`: then a person calls.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Failure> {
        let variable = |name: &str| get(name).unwrap_or_default();
        let name = variable("CNI_COMMAND");
        if name.is_empty() {
            return Ok(None);
        }
        let command = Command::parse(&name).ok_or_else(|| {
            invalid(format!("CNI_COMMAND is {name:?}: expected ADD, DEL, CHECK, GC, STATUS or VERSION"))
        })?;
        let missing: Vec<&str> =
            command.required().iter().copied().filter(|&name| variable(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(invalid(format!(
                "{name} needs environment variables that are missing: {}",
                missing.join(", ")
            )));
        }
        let request = Self {
            command,
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
            netns_override: matches!(
                variable("CNI_NETNS_OVERRIDE").to_ascii_uppercase().as_str(),
                "1" | "TRUE"
            ),
        };
        if !command.required().is_empty() {
            request.validate()?;
        }
        Ok(Some(request))
    }

    fn validate(&self) -> Result<(), Failure> {
        if !is_name(&self.container_id) {
            return Err(invalid(format!(
                "CNI_CONTAINERID is {:?}: expected a letter or digit, then letters, digits, '_', '.' and '-'",
                self.container_id
            )));
        }
        let name = &self.ifname;
        let strange = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if name.len() > 15 || name == "." || name == ".." || name.contains(strange) {
            return Err(invalid(format!(
                "CNI_IFNAME is {name:?}: expected an interface name, which has at most 15 characters, no '/', ':' or \
                 space, and is not '.' or '..'"
            )));
        }
        Ok(())
    }

    /// The primary key of the attachment in `network`.
    pub(crate) fn key<'a>(&'a self, network: &'a str) -> Key<'a> {
        Key { network, container_id: &self.container_id, ifname: &self.ifname }
    }
}

/// Whether `text` is what the specification allows as a container id or the name of a network.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidEnvironment, message)
}

/// The pod that `CNI_ARGS` names, where the runtime is a Kubernetes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl PodName {
    /// Reads `CNI_ARGS`: `KEY=VALUE` joined by `;`. Keys that are not known are an error unless `IgnoreUnknown` is set.
    pub(crate) fn parse(args: &str) -> Result<Self, Failure> {
        let (mut pod, mut tolerant, mut unknown) = (Self::default(), false, Vec::new());
        for pair in args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(invalid(format!("CNI_ARGS has {pair:?}: expected KEY=VALUE")));
            };
            match key {
                "IgnoreUnknown" => tolerant = matches!(value.to_ascii_lowercase().as_str(), "1" | "true"),
                "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut pod.name),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                _ => unknown.push(key),
            }
        }
        if !unknown.is_empty() && !tolerant {
            let keys = unknown.join(", ");
            return Err(invalid(format!(
                "CNI_ARGS has keys that are not known, without IgnoreUnknown=1: {keys}"
            )));
        }
        Ok(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Request>, Failure> {
        Request::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ADD: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "abc"), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0")];

    fn with(name: &str, value: &str) -> Result<Option<Request>, Failure> {
        let mut variables = ADD.map(|(key, old)| (key, if key == name { value } else { old })).to_vec();
        variables.push((name, value));
        read(&variables)
    }

    #[test]
    fn without_a_command_a_person_calls() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(with("CNI_COMMAND", ""), Ok(None));
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let failure = read(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert_eq!(failure.code, Code::InvalidEnvironment);
        assert!(failure.message.ends_with("CNI_CONTAINERID, CNI_NETNS"), "{}", failure.message);
    }

    #[test]
    fn del_needs_no_namespace_and_the_network_commands_need_nothing() {
        assert!(read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "b")]).is_ok());
        for command in ["GC", "STATUS", "VERSION"] {
            assert!(read(&[("CNI_COMMAND", command)]).unwrap().is_some());
        }
    }

    #[test]
    fn names_are_checked() {
        for (name, value, good) in [
            ("CNI_COMMAND", "add", false),
            ("CNI_CONTAINERID", "-abc", false),
            ("CNI_CONTAINERID", "a/b", false),
            ("CNI_CONTAINERID", "0a_.-Z", true),
            ("CNI_IFNAME", "sixteen-letters-", false),
            ("CNI_IFNAME", "fifteen-letters", true),
            ("CNI_IFNAME", "a/b", false),
            ("CNI_IFNAME", "a:b", false),
            ("CNI_IFNAME", "a b", false),
            ("CNI_IFNAME", ".", false),
            ("CNI_IFNAME", "..", false),
            ("CNI_IFNAME", "eth0.1", true),
        ] {
            let result = with(name, value);
            assert_eq!(result.is_ok(), good, "{name}={value}: {result:?}");
        }
    }

    #[test]
    fn arguments_name_the_pod() {
        let pod =
            PodName::parse("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;X=a=b;").unwrap();
        assert_eq!(pod, PodName { namespace: "default".to_owned(), name: "web-0".to_owned() });
        assert_eq!(PodName::parse("").unwrap(), PodName::default());
    }

    #[test]
    fn unknown_arguments_need_permission() {
        assert!(PodName::parse("A=1;B=2").unwrap_err().message.ends_with("A, B"));
        assert!(PodName::parse("A=1;IgnoreUnknown=true").is_ok());
        assert!(PodName::parse("IgnoreUnknown=1;nonsense").is_err());
    }
}
