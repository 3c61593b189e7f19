//! Tables as kubectl draws them: a heading, columns three spaces apart, no lines.

use comfy_table::{ContentArrangement, Table, presets};

/// Draws a table, or `empty` when it has no rows.
pub(super) fn draw(header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return format!("{empty}\n");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    format!("{}\n", table.trim_fmt())
}

/// A duration as kubectl shows ages (`HumanDuration`, k8s.io/apimachinery/pkg/util/duration).
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with =
        |text: String, rest: u64, unit: &str| if rest == 0 { text } else { format!("{text}{rest}{unit}") };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with(format!("{minutes}m"), seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(format!("{hours}h"), minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(format!("{days}d"), hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// `text`, or a dash where there is none, so that columns can be split at spaces.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_spaces_apart_and_lines_have_no_end() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = vec![row(["a", "bb"]), row(["cccc", "d"])];
        assert_eq!(draw(&["X", "Y"], rows, "none"), "X      Y\na      bb\ncccc   d\n");
        assert_eq!(draw(&["X", "Y"], Vec::new(), "none"), "none\n");
    }

    #[test]
    fn ages_are_kubectls() {
        let rows = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (3_599, "59m"),
            (10_860, "3h1m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ];
        for (seconds, expected) in rows {
            assert_eq!(age(seconds), expected);
        }
    }
}
