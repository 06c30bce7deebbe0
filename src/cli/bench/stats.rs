//! Times, and what a process has used up.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest time that is told apart from longer ones, in µs.
const MAX_MICROS: u64 = 600_000_000;

/// Many times, kept to three digits.
pub struct LatencyHistogram(Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        // These bounds are good ones: the lower is at least 1, the upper at least twice that.
        Self(Histogram::new_with_bounds(1, MAX_MICROS, 3).unwrap_or_else(|_| unreachable!("good bounds")))
    }
}

impl LatencyHistogram {
    pub fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(MAX_MICROS);
        self.0.saturating_record(micros);
    }

    /// The time below which this part of all lies (0.5 is the median), in ms.
    pub fn ms(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1_000.0
    }

    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Seconds of CPU that a process has used so far; `None` where the system does not tell.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything; fields 14 and 15 are user and system time.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes of memory that a process holds.
pub fn resident_bytes(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// CPU of several processes between two moments.
pub struct CpuTime {
    pids: Vec<u32>,
    before: f64,
}

impl CpuTime {
    pub fn begin(pids: &[u32]) -> Self {
        Self { pids: pids.to_vec(), before: total(pids) }
    }

    /// Seconds since then.
    pub fn seconds(&self) -> f64 {
        total(&self.pids) - self.before
    }
}

fn total(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| cpu_seconds(*pid)).sum()
}

/// Three digits that count, thousands apart.
pub fn number(value: f64) -> String {
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
