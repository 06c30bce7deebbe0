//! Tokens that are refused although their time is not over.

use super::sql::Row;
use super::{Store, StoreError};

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevocationKind {
    /// The one token with this `jti`.
    Token,
    /// Every token of a user that was issued up to the revocation.
    User,
    /// Every token of a foreign worker that was issued up to the revocation.
    Worker,
}

impl RevocationKind {
    /// The word in the column `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Worker => "worker",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Token, Self::User, Self::Worker].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One row of `revoked_tokens`. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What is refused.
    pub kind: RevocationKind,
    /// The `jti`, the user or the worker.
    pub name: String,
    /// Where; `None`: in every tenant.
    pub tenant: Option<String>,
    /// When it was revoked, by the database's clock.
    pub revoked_at: i64,
    /// When the row may go; `None`: never.
    pub keep_until: Option<i64>,
}

/// A revocation that is to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewRevocation<'a> {
    /// What is refused.
    pub kind: RevocationKind,
    /// The `jti`, the user or the worker.
    pub name: &'a str,
    /// Where; `None`: in every tenant.
    pub tenant: Option<&'a str>,
    /// From when on nothing that is refused can be valid any more, in Unix seconds; `None`: it is not known.
    pub keep_until: Option<i64>,
    /// Who revoked, for people who read the table.
    pub revoked_by: Option<&'a str>,
    /// Why, for the same people.
    pub reason: Option<&'a str>,
}

/// What has changed since a version.
#[derive(Debug)]
pub struct RevocationChanges {
    /// The version up to which this reaches.
    pub version: i64,
    /// Whether `rows` are all there are, in place of those newer than the version asked about.
    pub is_complete: bool,
    /// New and changed rows.
    pub rows: Vec<Revocation>,
}

impl Store {
    /// Records a revocation, and removes those whose time is over. One that was recorded before is renewed and kept for as
    /// long as either asks for. Returns the row.
    pub async fn revoke_tokens(&self, new: &NewRevocation<'_>) -> Result<Revocation, StoreError> {
        let mut tx = self.database.write().await?;
        let owned = |text: Option<&str>| text.map(str::to_owned).into();
        let row = tx
            .row(
                "INSERT INTO revoked_tokens (kind, name, tenant_id, keep_until, revoked_by, reason)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (kind, name, COALESCE(tenant_id, '')) DO UPDATE SET revoked_at = excluded.revoked_at,
                   keep_until = CASE WHEN revoked_tokens.keep_until > excluded.keep_until THEN revoked_tokens.keep_until
                     WHEN revoked_tokens.keep_until IS NULL THEN NULL ELSE excluded.keep_until END,
                   revoked_by = excluded.revoked_by, reason = excluded.reason
                 RETURNING kind, name, tenant_id, revoked_at, keep_until",
                &[
                    new.kind.as_str().into(),
                    new.name.into(),
                    owned(new.tenant),
                    new.keep_until.into(),
                    owned(new.revoked_by),
                    owned(new.reason),
                ],
            )
            .await?;
        let row = row.as_ref().map(revocation).transpose()?.flatten();
        let row = row.ok_or_else(|| StoreError::Refused("the revocation was not recorded".to_owned()))?;
        // By the earlier of the database's clock and this one: a clock that is ahead must not end a revocation early.
        let now = row.revoked_at.min(jiff::Timestamp::now().as_second());
        tx.execute("DELETE FROM revoked_tokens WHERE keep_until < $1", &[now.into()]).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Revocations that are newer than a version; all of them where none is known, or where rows have been removed.
    pub async fn revocations_since(&self, known: Option<i64>) -> Result<RevocationChanges, StoreError> {
        if let Some(known) = known {
            let changes = self.revocations_after(known).await?;
            // Each version belongs to one row. Where one is missing, a row was removed or changed twice; where the
            // version is lower than before, the database is another, or was put back to an earlier state.
            if i64::try_from(changes.rows.len()).ok() == changes.version.checked_sub(known) {
                return Ok(changes);
            }
        }
        Ok(RevocationChanges { is_complete: true, ..self.revocations_after(-1).await? })
    }

    async fn revocations_after(&self, version: i64) -> Result<RevocationChanges, StoreError> {
        // One statement: on SQLite and PostgreSQL alike it sees one moment.
        let text = "SELECT v.version AS newest, r.kind, r.name, r.tenant_id, r.revoked_at, r.keep_until
            FROM revocation_version v LEFT JOIN revoked_tokens r ON r.version > $1";
        let found = self.database.read().await?.rows(text, &[version.into()]).await?;
        let newest = found.first().map(|row| row.int("newest")).transpose()?.flatten();
        let rows = found.iter().filter_map(|row| revocation(row).transpose()).collect::<Result<_, _>>()?;
        Ok(RevocationChanges { version: newest.unwrap_or(0), is_complete: false, rows })
    }
}

/// `None`: the row stands for no revocation.
fn revocation(row: &Row) -> Result<Option<Revocation>, StoreError> {
    let Some(kind) = row.text("kind")?.as_deref().and_then(RevocationKind::parse) else { return Ok(None) };
    Ok(Some(Revocation {
        kind,
        name: row.required("name")?,
        tenant: row.text("tenant_id")?,
        revoked_at: row.int("revoked_at")?.unwrap_or(i64::MAX),
        keep_until: row.int("keep_until")?,
    }))
}
