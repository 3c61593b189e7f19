//! What the demo prints: progress lines and one table. Colours on a terminal only.
#![expect(clippy::print_stdout, reason = "a demo is for looking at")]

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use portolan_lab::{Answer, Call, Failure};

/// The terminal, or what stands for it.
pub(crate) struct Screen {
    coloured: bool,
}

/// A line that is not finished yet.
pub(crate) struct Step<'a> {
    screen: &'a Screen,
    began: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { coloured: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Says what begins.
    pub(crate) fn step(&self, what: &str) -> Step<'_> {
        print!("{} {what} … ", self.paint("36", "▸"));
        // Shown late is better than not done.
        let _shown = std::io::stdout().flush();
        Step { screen: self, began: Instant::now() }
    }

    /// Prints as it is.
    pub(crate) fn say(&self, text: &str) {
        println!("\n{text}\n");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Step<'_> {
    /// Says how it ended, and how long it took.
    pub(crate) fn done(self, how: &str) {
        let ms = self.began.elapsed().as_millis();
        println!("{} {how} {}", self.screen.paint("32", "✓"), self.screen.paint("2", &format!("({ms} ms)")));
    }
}

/// Who asked what, and what became of it.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    pub(crate) fn new() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["Who asks", "For", "At", "Who answers", "The server saw", "Took"]);
        Self(table)
    }

    pub(crate) fn row(&mut self, who: &str, what: &str, call: &Call, outcome: &Result<Answer, Failure>) {
        let (answers, saw, us) = match outcome {
            Ok(answer) => (chain(answer), answer.client.ip().to_string(), answer.us),
            Err(failure) => (failure.errno.clone(), "–".to_owned(), failure.us),
        };
        self.0.add_row([who, what, &call.to_string(), &answers, &saw, &format!("{us} µs")]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The servers of all tiers, the first one first.
fn chain(answer: &Answer) -> String {
    match &answer.via {
        Some(next) => format!("{} → {}", answer.server, chain(next)),
        None => answer.server.clone(),
    }
}
