//! What jobs print: the newest lines of each, in a table of their own.

use super::sql::{MultiRowInsert, Row, Value};
use super::{Run, Store, StoreError, rows};
use crate::domain::{MAX_OUTPUT_LINES, OutputLine, OutputStream, Resource};

/// A line on its way into SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOutputLine {
    /// Unix ms.
    pub at: i64,
    /// Where it comes from.
    pub stream: OutputStream,
    /// Without its end.
    pub text: String,
    /// Its end has not come: the next lines begin in its place. Only of the last one of several.
    pub open: bool,
}

impl Store {
    /// Adds lines of a run, after those that are there, and drops the oldest beyond [`MAX_OUTPUT_LINES`]. They begin in the
    /// place of the run's last line, if that is open. `false`: the job is another run's by now.
    pub async fn add_output(&self, run: &Run, lines: &[NewOutputLine]) -> Result<bool, StoreError> {
        if lines.is_empty() {
            return Ok(true);
        }
        let key = [Value::from(run.job.tenant.as_str()), run.job.id.as_str().into()];
        let mut tx = self.database.write().await?;
        // Held until the end, so that two programs do not give the same number to two lines.
        let text = "SELECT CAST(run AS BIGINT) AS run FROM jobs WHERE tenant_id = $1 AND id = $2 {lock}";
        let now = tx.row(text, &key).await?.map_or(Ok(None), |row| row.int("run"))?;
        if now.is_none_or(|now| now > run.number) {
            tx.rollback().await?;
            return Ok(false);
        }
        let text = "SELECT line, run, CAST(CASE WHEN is_open THEN 1 ELSE 0 END AS BIGINT) AS is_open
                    FROM job_output WHERE tenant_id = $1 AND job_id = $2 ORDER BY line DESC LIMIT 1";
        let mut next = 1;
        if let Some(last) = tx.row(text, &key).await? {
            let number = last.int("line")?.unwrap_or(0);
            next = number + 1;
            if last.int("is_open")? == Some(1) {
                // What has become of it is among the new lines. A run that broke off leaves it as it is.
                let is_own = last.int("run")? == Some(run.number);
                let change = if is_own { "DELETE FROM job_output" } else { "UPDATE job_output SET is_open = FALSE" };
                let text = format!("{change} WHERE tenant_id = $1 AND job_id = $2 AND line = $3");
                tx.execute(&text, &[key[0].clone(), key[1].clone(), number.into()]).await?;
                next -= i64::from(is_own);
            }
        }
        let rows: Vec<Vec<Value>> = lines
            .iter()
            .zip(next..)
            .map(|(line, number)| {
                vec![
                    key[0].clone(),
                    key[1].clone(),
                    number.into(),
                    run.number.into(),
                    line.at.into(),
                    line.stream.as_str().into(),
                    line.text.as_str().into(),
                    i64::from(line.open).into(),
                ]
            })
            .collect();
        let insert = MultiRowInsert {
            before: "INSERT INTO job_output (tenant_id, job_id, line, run, at, stream, text, is_open) ",
            row: "(?, ?, ?, ?, ?, ?, ?, ? = 1)",
            after: "",
            rows: &rows,
        };
        tx.execute_many(&[insert]).await?;
        let newest = next + i64::try_from(rows.len()).unwrap_or(0) - 1;
        let oldest = newest - MAX_OUTPUT_LINES as i64;
        let text = "DELETE FROM job_output WHERE tenant_id = $1 AND job_id = $2 AND line <= $3";
        tx.execute(text, &[key[0].clone(), key[1].clone(), oldest.into()]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Lines of a job behind this one, oldest first.
    pub async fn job_output(&self, job: &Resource, after: i64, limit: u32) -> Result<Vec<OutputLine>, StoreError> {
        let text = format!(
            "SELECT line, run, at, stream, text, CAST(CASE WHEN is_open THEN 1 ELSE 0 END AS BIGINT) AS is_open
             FROM job_output WHERE tenant_id = $1 AND job_id = $2 AND line > $3 ORDER BY line LIMIT {limit}"
        );
        let values = [job.tenant.as_str().into(), job.id.as_str().into(), after.into()];
        let found = self.database.read().await?.rows(&text, &values).await?;
        Ok(found.iter().filter_map(|row| rows::skip_unreadable(line(row))).collect())
    }

    /// The number of the line before a job's last lines, so that [`Self::job_output`] gives those.
    pub async fn output_tail(&self, job: &Resource, lines: u32) -> Result<i64, StoreError> {
        let text = "SELECT MAX(line) AS line FROM job_output WHERE tenant_id = $1 AND job_id = $2";
        let values = [job.tenant.as_str().into(), job.id.as_str().into()];
        let row = self.database.read().await?.row(text, &values).await?;
        let last = row.map_or(Ok(None), |row| row.int("line"))?.unwrap_or(0);
        Ok((last - i64::from(lines)).max(0))
    }
}

fn line(row: &Row) -> Result<OutputLine, StoreError> {
    let stream = row.required("stream")?;
    let at = jiff::Timestamp::from_millisecond(row.int("at")?.unwrap_or(0)).unwrap_or_default();
    Ok(OutputLine {
        line: row.int("line")?.unwrap_or(0),
        run: row.int("run")?.unwrap_or(0),
        at: at.to_string(),
        stream: OutputStream::parse(&stream)
            .ok_or_else(|| StoreError::Refused(format!("a line of output has the unknown stream {stream:?}")))?,
        text: row.text("text")?.unwrap_or_default(),
        open: row.int("is_open")? == Some(1),
    })
}
