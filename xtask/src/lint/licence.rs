//! SPDX licence expressions (SPDX specification, annex D), as far as crates use them.

use std::collections::BTreeSet;
use std::iter::Peekable;

use anyhow::{Result, bail};

/// Whether a licence expression can be met with the allowed licences alone. A licence with an exception is allowed by
/// its full name, such as `Apache-2.0 WITH LLVM-exception`.
pub(super) fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> Result<bool> {
    // The slash is how crates wrote OR before cargo knew SPDX.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let answer = any(&mut words, allowed)?;
    match words.next() {
        None => Ok(answer),
        Some(word) => bail!("`{word}` was not expected in the licence `{expression}`"),
    }
}

fn any<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &BTreeSet<&str>) -> Result<bool> {
    let mut answer = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        answer |= all(words, allowed)?;
    }
    Ok(answer)
}

fn all<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &BTreeSet<&str>) -> Result<bool> {
    let mut answer = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        answer &= one(words, allowed)?;
    }
    Ok(answer)
}

fn one<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &BTreeSet<&str>) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let answer = any(words, allowed)?;
            match words.next() {
                Some(")") => Ok(answer),
                other => bail!("a `)` was expected in a licence, not {other:?}"),
            }
        }
        Some(word @ (")" | "OR" | "AND" | "WITH")) => {
            bail!("the name of a licence was expected, not `{word}`")
        }
        Some(id) if words.next_if_eq(&"WITH").is_some() => match words.next() {
            Some(exception) => Ok(allowed.contains(format!("{id} WITH {exception}").as_str())),
            None => bail!("the name of an exception was expected after `{id} WITH`"),
        },
        Some(id) => Ok(allowed.contains(id)),
        None => bail!("a licence expression ends too early"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_weighed_as_spdx_says() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]);
        let rows = [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("GPL-2.0-only OR MIT", true),
            ("GPL-2.0-only AND MIT", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND NCSA", false),
            ("MIT OR Apache-2.0 AND NCSA", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
        ];
        for (expression, expected) in rows {
            assert_eq!(satisfied(expression, &allowed).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for expression in ["", "MIT OR", "(MIT", "MIT MIT", "OR MIT", "MIT WITH"] {
            assert!(satisfied(expression, &BTreeSet::from(["MIT"])).is_err(), "{expression}");
        }
    }
}
