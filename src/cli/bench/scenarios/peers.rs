//! What a user would take instead, on the same machine in the same run (`make bench-peers` installs them).

use super::Bench;

pub(super) async fn peers(_bench: &mut Bench) -> anyhow::Result<()> {
    Ok(())
}
