//! From OpenMetrics to the older text format of Prometheus, which every scraper reads, and in which kube-proxy answers.

use std::collections::BTreeMap;

/// The content type of the older format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The samples are the same in both formats. In the older one a description carries the name of the samples, with its
/// suffix, what OpenMetrics calls an info is a gauge, and there is no mark of the end.
pub(super) fn from_open_metrics(text: &str) -> String {
    let suffixes: BTreeMap<&str, &str> = text.lines().filter_map(suffix).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described =
            described(line).and_then(|(word, name, rest)| Some((word, name, suffixes.get(name)?, rest)));
        match described {
            Some((word, name, suffix, rest)) => {
                let rest = if (word, rest) == ("TYPE", "info") { "gauge" } else { rest };
                classic.push_str(&format!("# {word} {name}{suffix} {rest}"));
            }
            None => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// The name of a metric whose samples have a suffix, and the suffix.
fn suffix(line: &str) -> Option<(&str, &str)> {
    match described(line)? {
        ("TYPE", name, "counter") => Some((name, "_total")),
        ("TYPE", name, "info") => Some((name, "_info")),
        _ => None,
    }
}

/// `HELP` or `TYPE`, the name, and what follows.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let (word, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    Some((word, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptions_change() {
        let open = "\
# HELP a Help of a.
# TYPE a counter
a_total{x=\"1\"} 2
# HELP b Help.
# TYPE b gauge
b 1
# HELP c Help.
# TYPE c info
c_info{v=\"1\"} 1
# EOF
";
        let classic = "\
# HELP a_total Help of a.
# TYPE a_total counter
a_total{x=\"1\"} 2
# HELP b Help.
# TYPE b gauge
b 1
# HELP c_info Help.
# TYPE c_info gauge
c_info{v=\"1\"} 1
";
        assert_eq!(from_open_metrics(open), classic);
    }
}
