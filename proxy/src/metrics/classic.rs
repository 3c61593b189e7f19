//! From OpenMetrics to the older text format of Prometheus, which every scraper reads, and in which kube-proxy answers.

use std::collections::BTreeSet;

/// The content type of the older format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The samples are the same in both formats. In the older one a counter's description carries the name of its samples,
/// with `_total`, and there is no mark of the end.
pub(super) fn from_open_metrics(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        match described(line).filter(|(_, name, _)| counters.contains(name)) {
            Some((word, name, rest)) => classic.push_str(&format!("# {word} {name}_total {rest}")),
            None => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
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
    fn only_the_description_of_counters_changes() {
        let open = "# HELP a Help of a.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Help.\n# TYPE b gauge\nb 1\n# EOF\n";
        assert_eq!(
            from_open_metrics(open),
            "# HELP a_total Help of a.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b Help.\n# TYPE b gauge\nb 1\n"
        );
    }
}
