//! The one table, and the same as JSON.

use std::path::Path;

use serde::Serialize;

use crate::cli::out::{remark, report};

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) scenario: String,
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it should be, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) met: Option<bool>,
    /// Figures of the same run that it is to be seen beside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) beside_running: String,
}

/// What was measured, in order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Machine and programs.
    pub(super) about: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// What could not be measured, and why.
    pub(super) left_out: Vec<String>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// A figure without a target.
    pub(super) fn note(&mut self, scenario: &str, what: &str, value: f64, unit: &'static str) {
        self.add(scenario, what, value, unit, None, String::new());
    }

    /// A figure with a target.
    pub(super) fn aim(&mut self, scenario: &str, what: &str, value: f64, unit: &'static str, target: Target) {
        self.add(scenario, what, value, unit, Some(target), String::new());
    }

    pub(super) fn add(
        &mut self,
        scenario: &str,
        what: &str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
        beside_running: String,
    ) {
        let (text, met) = match target {
            None => (None, None),
            Some(Target::AtLeast(least)) => (Some(format!("≥ {}", number(least))), Some(value >= least)),
            Some(Target::AtMost(most)) => (Some(format!("≤ {}", number(most))), Some(value <= most)),
        };
        let row = Row {
            scenario: scenario.to_owned(),
            what: what.to_owned(),
            value,
            unit,
            target: text,
            met,
            beside_running,
        };
        remark!("  {}", line(&row));
        self.rows.push(row);
    }

    /// Something could not be measured.
    pub(super) fn leave_out(&mut self, scenario: &str, why: &anyhow::Error) {
        let text = format!("{scenario}: {why:#}");
        remark!("  left out: {text}");
        self.left_out.push(text);
    }

    /// The value of a row of this run.
    pub(super) fn value(&self, scenario: &str, what: &str) -> Option<f64> {
        self.rows.iter().rev().find(|row| row.scenario == scenario && row.what == what).map(|row| row.value)
    }

    pub(super) fn print(&self) {
        for line in &self.about {
            report!("{line}");
        }
        report!();
        for row in &self.rows {
            report!("{}", line(row));
        }
        let missed: Vec<&Row> = self.rows.iter().filter(|row| row.met == Some(false)).collect();
        let aimed = self.rows.iter().filter(|row| row.met.is_some()).count();
        report!("\n{} of {aimed} targets met.", aimed - missed.len());
        for row in missed {
            report!("  missed: {}", line(row));
        }
        for text in &self.left_out {
            report!("  left out: {text}");
        }
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let mark = match row.met {
        Some(true) => "ok",
        Some(false) => "MISSED",
        None => "",
    };
    let target = row.target.as_deref().unwrap_or_default();
    let value = format!("{} {}", number(row.value), row.unit);
    let text =
        format!("{:<28} {:<44} {value:>16}  {target:<10} {mark:<6} {}", row.scenario, row.what, row.beside_running);
    text.trim_end().to_owned()
}

/// Three digits that count, thousands apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut out = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 && digit.is_ascii_digit() && out != "-" {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(rest) = rest {
        out.push('.');
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_that_count() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1.234), "1.23");
        assert_eq!(number(0.1234), "0.123");
    }
}
