//! kube-proxy's traffic tables, row by row: `traffic/kube-proxy.md` is what this test reads.

#[path = "traffic/explain.rs"]
mod explain;
#[path = "traffic/row.rs"]
mod row;
#[path = "traffic/table.rs"]
mod table;
#[path = "traffic/world.rs"]
mod world;

use anyhow::{Context as _, Result};

use table::Table;
use world::World;

const DOCUMENT: &str = include_str!("traffic/kube-proxy.md");

#[test]
fn every_row_of_the_document_holds() -> Result<()> {
    let tables = Table::all(DOCUMENT)?;
    let rows: usize = tables.iter().map(|table| table.rows.len()).sum();
    assert!(rows > 80, "the document has {rows} rows");
    let mut world = World::begin()?;
    let mut wrong = Vec::new();
    for (number, table) in (1..).zip(&tables) {
        let setting = world.set(table, number).with_context(|| table.title.clone())?;
        wrong.extend(row::check(&setting, table)?);
        setting.end()?;
    }
    assert!(wrong.is_empty(), "{} answers are not as documented:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
