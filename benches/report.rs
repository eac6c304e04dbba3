//! The table for people and the JSON for machines.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

/// How a figure is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Ours at most this many times the floor's.
    Ratio(f64),
    /// Ours at most this much above the floor's, in the row's unit.
    Above(f64),
    /// Ours at most this, in the row's unit.
    AtMost(f64),
    /// Ours at least this, in the row's unit.
    AtLeast(f64),
    /// Not judged.
    None,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Stable name for machines.
    pub(crate) key: &'static str,
    pub(crate) measure: String,
    pub(crate) unit: &'static str,
    pub(crate) floor: Option<f64>,
    pub(crate) ours: Option<f64>,
    pub(crate) target: Target,
    /// What else was seen: rates, sizes.
    pub(crate) detail: Value,
}

impl Row {
    fn met(&self) -> Option<bool> {
        let ours = self.ours?;
        match self.target {
            Target::Ratio(most) => Some(ours <= most * self.floor?),
            Target::Above(most) => Some(ours <= most + self.floor?),
            Target::AtMost(most) => Some(ours <= most),
            Target::AtLeast(least) => Some(ours >= least),
            Target::None => None,
        }
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.floor.filter(|floor| *floor > 0.0)?)
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::Ratio(most) => format!("at most {most} × floor"),
            Target::Above(most) => format!("at most floor + {most} {}", self.unit),
            Target::AtMost(most) => format!("at most {most} {}", self.unit),
            Target::AtLeast(least) => format!("at least {least} {}", self.unit),
            Target::None => String::new(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "key": self.key, "measure": self.measure, "unit": self.unit, "floor": self.floor, "ours": self.ours,
            "ratio": self.ratio(), "target": self.target_text(), "met": self.met(), "detail": self.detail,
        })
    }
}

/// Everything that a run found out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// What the reader must know: fewer connections than asked, a part that was left out.
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn json(&self, about: &Value) -> Value {
        json!({ "about": about, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(), "notes": self.notes })
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "measure", "unit", "floor", "ours", "ratio", "target", "verdict",
        ]);
        for column in 2..5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in &self.rows {
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
            let verdict = match row.met() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            table.add_row([
                row.measure.clone(),
                row.unit.to_owned(),
                number(row.floor),
                number(row.ours),
                number(row.ratio()),
                row.target_text(),
                verdict.to_owned(),
            ]);
        }
        let mut text = table.to_string();
        for note in &self.notes {
            text.push_str("\nnote: ");
            text.push_str(note);
        }
        text
    }

    /// Whether every target that was judged is met.
    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.met() != Some(false))
    }
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// What a quarter of them does not exceed.
pub(crate) fn quartile(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 4).copied()
}
