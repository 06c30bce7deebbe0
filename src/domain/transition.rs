//! The transition table: what each action does to each status (CONTRACT section 7).

use super::campaign::CampaignStatus;
use super::command::Action;
use super::job::JobStatus;

/// What a command does to a resource in a given status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<S> {
    /// It goes there.
    Move(S),
    /// It succeeds and changes nothing.
    Unchanged,
    /// It fails: the resource has ended.
    Refuse,
}

/// What the action does to a job. `before_pause` is where a paused job goes back to.
pub fn job_transition(status: JobStatus, action: Action, before_pause: JobStatus) -> Decision<JobStatus> {
    use Action::{Cancel, Pause, Resume};
    use Decision::{Move, Refuse, Unchanged};
    use JobStatus::{Cancelled, Completed, Failed, Paused, Pending, Running};
    match (status, action) {
        (Pending | Running, Pause) => Move(Paused),
        (Paused, Pause) => Unchanged,
        (Pending | Running, Resume) => Unchanged,
        (Paused, Resume) => Move(before_pause),
        (Pending | Running | Paused, Cancel) => Move(Cancelled),
        (Completed | Failed | Cancelled, _) => Refuse,
    }
}

/// What the action does to a campaign.
pub fn campaign_transition(status: CampaignStatus, action: Action) -> Decision<CampaignStatus> {
    use Action::{Cancel, Pause, Resume};
    use CampaignStatus::{Active, Cancelled, Completed, Paused};
    use Decision::{Move, Refuse, Unchanged};
    match (status, action) {
        (Active, Pause) => Move(Paused),
        (Paused, Pause) => Unchanged,
        (Active, Resume) => Unchanged,
        (Paused, Resume) => Move(Active),
        (Active | Paused, Cancel) => Move(Cancelled),
        (Completed | Cancelled, _) => Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_job_table_is_as_the_contract_says() {
        use Action::*;
        use Decision::*;
        use JobStatus::*;
        let table = [
            (Pending, [Move(Cancelled), Move(Paused), Unchanged]),
            (Running, [Move(Cancelled), Move(Paused), Unchanged]),
            (Paused, [Move(Cancelled), Unchanged, Move(Running)]),
            (Completed, [Refuse, Refuse, Refuse]),
            (Failed, [Refuse, Refuse, Refuse]),
            (Cancelled, [Refuse, Refuse, Refuse]),
        ];
        assert_eq!(table.len(), JobStatus::ALL.len());
        for (status, row) in table {
            for (action, expected) in [Cancel, Pause, Resume].into_iter().zip(row) {
                assert_eq!(job_transition(status, action, Running), expected, "{status:?} {action:?}");
            }
        }
        assert_eq!(job_transition(Paused, Resume, Pending), Move(Pending));
    }

    #[test]
    fn every_cell_of_the_campaign_table_is_as_the_contract_says() {
        use Action::*;
        use CampaignStatus::*;
        use Decision::*;
        let table = [
            (Active, [Move(Cancelled), Move(Paused), Unchanged]),
            (Paused, [Move(Cancelled), Unchanged, Move(Active)]),
            (Completed, [Refuse, Refuse, Refuse]),
            (Cancelled, [Refuse, Refuse, Refuse]),
        ];
        assert_eq!(table.len(), CampaignStatus::ALL.len());
        for (status, row) in table {
            for (action, expected) in [Cancel, Pause, Resume].into_iter().zip(row) {
                assert_eq!(campaign_transition(status, action), expected, "{status:?} {action:?}");
            }
        }
    }
}
