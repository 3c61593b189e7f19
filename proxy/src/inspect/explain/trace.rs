//! What is said on the way: steps, and how it ends.

use portolan_abi::Outcome;
use serde::Serialize;

use super::choice::Choice;
use super::snapshot::Snapshot;

/// One step of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it is taken.
    pub stage: Stage,
    /// What is found and what follows from it.
    pub text: String,
    /// Of the verdict, [`Outcome::name`] of everything that is counted; empty when the host's stack takes the packet as
    /// it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<&'static str>,
}

/// Where a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The source and where it is.
    Source,
    /// connect(2): the programs of sockets.
    Socket,
    /// The programs of packets, at a pod's interface or an uplink.
    Packet,
    /// How it ends.
    Verdict,
}

impl Stage {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Socket => "socket",
            Self::Packet => "packet",
            Self::Verdict => "verdict",
        }
    }
}

/// The steps so far.
pub(super) struct Trace<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Where the next step is taken.
    pub(super) stage: Stage,
    steps: Vec<Step>,
}

impl<'a> Trace<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, stage: Stage::Source, steps: Vec::new() }
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.steps.push(Step { stage: self.stage, text: text.into(), outcomes: Vec::new() });
    }

    pub(super) fn end(mut self, ending: Ending) -> Vec<Step> {
        let outcomes: Vec<_> = ending.outcomes.iter().map(|outcome| outcome.name()).collect();
        let name = if outcomes.is_empty() { "stack".to_owned() } else { outcomes.join(", ") };
        let text = format!("{name}: {}", ending.text);
        self.steps.push(Step { stage: Stage::Verdict, text, outcomes });
        self.steps
    }
}

/// How it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// What the programs count, in order.
    outcomes: Vec<Outcome>,
    text: String,
}

impl Ending {
    /// The host's stack takes it.
    pub(super) fn stack(text: impl Into<String>) -> Self {
        Self { outcomes: Vec::new(), text: text.into() }
    }

    /// It goes past the host's stack.
    pub(super) fn forwarded(text: impl Into<String>) -> Self {
        Self { outcomes: vec![Outcome::Forwarded], text: text.into() }
    }

    /// It ends here.
    pub(super) fn failed(outcome: Outcome, text: impl Into<String>) -> Self {
        Self { outcomes: vec![outcome], text: text.into() }
    }

    /// The same, after a flow was made for it.
    pub(super) fn after_translation(mut self) -> Self {
        if !self.outcomes.contains(&Outcome::Translated) {
            self.outcomes.insert(0, Outcome::Translated);
        }
        self
    }

    /// The same, and what is counted later on the way.
    pub(super) fn then(mut self, outcome: Outcome, text: &str) -> Self {
        self.outcomes.push(outcome);
        self.text = format!("{}; {text}", self.text);
        self
    }

    /// The same, after a socket was given its backend.
    pub(super) fn after_connect(self, choice: &Choice) -> Self {
        let text = format!("connect gives the socket {}; {}", choice.words(), self.text);
        Self { text, ..self.after_translation() }
    }

    /// One of these, by chance.
    pub(super) fn one_of(endings: Vec<Self>) -> Self {
        let mut all = Self { outcomes: Vec::new(), text: String::new() };
        let mut texts: Vec<String> = Vec::new();
        for ending in endings {
            for outcome in ending.outcomes {
                if !all.outcomes.contains(&outcome) {
                    all.outcomes.push(outcome);
                }
            }
            if !texts.contains(&ending.text) {
                texts.push(ending.text);
            }
        }
        all.text = texts.join(", or: ");
        all
    }
}
