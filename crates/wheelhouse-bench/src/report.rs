//! The one table, and the same as JSON.

use std::path::Path;

use serde::Serialize;

use wheelhouse::cli::bench::load_clients::LoadOutcome;
use wheelhouse::cli::bench::stats::number;

use crate::print::{remark, report};

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What it should be, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
    /// Figures of the same run that it is to be seen beside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) beside: String,
}

/// What was measured, in order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Machine and programs.
    pub(crate) about: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// What could not be measured, and why.
    pub(crate) left_out: Vec<String>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    /// A figure without a target.
    pub(crate) fn note(&mut self, scenario: &str, what: &str, value: f64, unit: &'static str) {
        self.add(scenario, what, value, unit, None, String::new());
    }

    /// A figure with a target.
    pub(crate) fn aim(&mut self, scenario: &str, what: &str, value: f64, unit: &'static str, target: Target) {
        self.add(scenario, what, value, unit, Some(target), String::new());
    }

    pub(crate) fn add(
        &mut self,
        scenario: &str,
        what: &str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
        beside: String,
    ) {
        let (text, met) = match target {
            None => (None, None),
            Some(Target::AtLeast(least)) => (Some(format!("≥ {}", number(least))), Some(value >= least)),
            Some(Target::AtMost(most)) => (Some(format!("≤ {}", number(most))), Some(value <= most)),
        };
        let row = Row { scenario: scenario.to_owned(), what: what.to_owned(), value, unit, target: text, met, beside };
        remark!("  {}", line(&row));
        self.rows.push(row);
    }

    /// Something could not be measured.
    pub(crate) fn leave_out(&mut self, scenario: &str, why: &anyhow::Error) {
        let text = format!("{scenario}: {why:#}");
        remark!("  left out: {text}");
        self.left_out.push(text);
    }

    /// The value of a row of this run.
    pub(crate) fn value(&self, scenario: &str, what: &str) -> Option<f64> {
        self.rows.iter().rev().find(|row| row.scenario == scenario && row.what == what).map(|row| row.value)
    }

    /// What went wrong under load: nothing is allowed to.
    pub(crate) fn faults(&mut self, scenario: &str, what: &str, outcome: &LoadOutcome) {
        self.add(scenario, what, outcome.faults(), "", Some(Target::AtMost(0.0)), outcome.faults_by_kind());
    }

    pub(crate) fn print(&self) {
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

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
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
    let text = format!("{:<28} {:<44} {value:>16}  {target:<10} {mark:<6} {}", row.scenario, row.what, row.beside);
    text.trim_end().to_owned()
}
