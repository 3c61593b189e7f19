//! `portolan explain`, which runs the decision on the maps, must say what the programs do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::row::Question;
use super::table::Outcome;
use super::world::Setting;

/// Outcomes of which the client is told at once, and those of which it is not.
const REJECTED: [&str; 2] = ["no_endpoints", "unknown_port"];
const DROPPED: [&str; 3] = ["no_local_endpoints", "source_denied", "unallocated_address"];

/// Asks what becomes of the question, and compares with what the row says. It knows no pods without sockets.
pub(crate) fn check(setting: &Setting<'_>, question: &Question<'_>) -> Result<(), String> {
    let Some(from) = question.client.explained_as.as_deref() else { return Ok(()) };
    let call = &question.call;
    let (proto, src) = (call.proto.as_str().to_lowercase(), question.client_ip().to_string());
    let arguments = ["explain", &proto, &src, &call.dst.to_string(), "--from", from, "-o", "json"];
    let said = setting.portolan(&arguments).map_err(|error| format!("{error:#}"))?;
    let steps: Vec<Value> = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    let outcomes = steps.last().and_then(|verdict| verdict["outcomes"].as_array());
    let outcomes: Vec<_> = outcomes.into_iter().flatten().filter_map(Value::as_str).collect();
    let is = |names: &[&str]| !outcomes.is_empty() && outcomes.iter().all(|outcome| names.contains(outcome));
    let agrees = match &question.row.outcome {
        Outcome::Reject => is(&REJECTED),
        Outcome::Drop => is(&DROPPED),
        Outcome::Answers(_) => {
            let expected = setting.sockets(&question.row.outcome, question.family);
            named(&steps, &setting.all_sockets(question.family)) == expected
                && outcomes.contains(&"translated") != expected.is_empty()
        }
    };
    let words = || steps.iter().filter_map(|step| step["text"].as_str()).collect::<Vec<_>>().join("\n  ");
    if agrees { Ok(()) } else { Err(format!("explain says\n  {}", words())) }
}

/// Which of these the steps speak of.
fn named(steps: &[Value], sockets: &BTreeSet<String>) -> BTreeSet<String> {
    let words: BTreeSet<_> = steps
        .iter()
        .filter_map(|step| step["text"].as_str())
        .flat_map(|text| text.split([' ', ',', ';', '/']))
        .collect();
    sockets.iter().filter(|socket| words.contains(socket.as_str())).cloned().collect()
}
