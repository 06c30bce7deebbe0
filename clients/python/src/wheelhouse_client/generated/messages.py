"""Generated from schema/messages.schema.json by scripts/generate.py. Do not edit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if sys.version_info >= (3, 11):
    from typing import NotRequired
elif TYPE_CHECKING:
    from typing_extensions import NotRequired

Id: TypeAlias = str


CommandId: TypeAlias = str


Time: TypeAlias = str


OptionalTime: TypeAlias = str | None


Action: TypeAlias = Literal['cancel', 'pause', 'resume']


Kind: TypeAlias = Literal['job', 'campaign']


JobState: TypeAlias = Literal['pending', 'running', 'paused', 'completed', 'failed', 'cancelled']


CampaignState: TypeAlias = Literal['active', 'paused', 'completed', 'cancelled']


AnyState: TypeAlias = Literal['pending', 'running', 'active', 'paused', 'completed', 'failed', 'cancelled']


Desired: TypeAlias = Literal['running', 'active', 'paused', 'cancelled']


Control: TypeAlias = Literal['live', 'row']


Count: TypeAlias = int


Percent: TypeAlias = int


Seq: TypeAlias = int


ErrorCode: TypeAlias = Literal['invalid_message', 'unknown_type', 'permission_denied', 'rate_limit_exceeded', 'request_conflict', 'queue_full', 'unavailable', 'outcome_unknown', 'unauthorized', 'forbidden', 'not_found', 'too_many_connections', 'conflict', 'method_not_allowed', 'too_large', 'unsupported_encoding', 'timeout', 'internal']


class CancelJob(TypedDict):
    """
    Cancels a job.
    """

    type: Literal['cancel_job']
    job_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class PauseJob(TypedDict):
    """
    Pauses a job.
    """

    type: Literal['pause_job']
    job_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class ResumeJob(TypedDict):
    """
    Resumes a job.
    """

    type: Literal['resume_job']
    job_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class CancelCampaign(TypedDict):
    """
    Cancels a campaign.
    """

    type: Literal['cancel_campaign']
    campaign_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class PauseCampaign(TypedDict):
    """
    Pauses a campaign.
    """

    type: Literal['pause_campaign']
    campaign_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class ResumeCampaign(TypedDict):
    """
    Resumes a campaign.
    """

    type: Literal['resume_campaign']
    campaign_id: NotRequired[Id]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    run_at: NotRequired[str | None]
    delay_seconds: NotRequired[int | None]


class JobSelection(TypedDict):
    """
    All that match and have not ended, the newest 1,000 of them. Not together with ids.
    """

    status: NotRequired[Literal['pending', 'running', 'paused'] | list[Literal['pending', 'running', 'paused']]]
    campaign_id: NotRequired[Id | None]
    job_type: NotRequired[str | None]


class CancelJobs(TypedDict):
    """
    Cancels many jobs at once: those of the ids, or those that match the filter.
    """

    type: Literal['cancel_jobs']
    job_ids: NotRequired[list[Id]]
    filter: NotRequired[JobSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class PauseJobs(TypedDict):
    """
    Pauses many jobs at once: those of the ids, or those that match the filter.
    """

    type: Literal['pause_jobs']
    job_ids: NotRequired[list[Id]]
    filter: NotRequired[JobSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class ResumeJobs(TypedDict):
    """
    Resumes many jobs at once: those of the ids, or those that match the filter.
    """

    type: Literal['resume_jobs']
    job_ids: NotRequired[list[Id]]
    filter: NotRequired[JobSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class CampaignSelection(TypedDict):
    """
    All that match and have not ended, the newest 1,000 of them. Not together with ids.
    """

    status: NotRequired[Literal['active', 'paused'] | list[Literal['active', 'paused']]]


class CancelCampaigns(TypedDict):
    """
    Cancels many campaigns at once: those of the ids, or those that match the filter.
    """

    type: Literal['cancel_campaigns']
    campaign_ids: NotRequired[list[Id]]
    filter: NotRequired[CampaignSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class PauseCampaigns(TypedDict):
    """
    Pauses many campaigns at once: those of the ids, or those that match the filter.
    """

    type: Literal['pause_campaigns']
    campaign_ids: NotRequired[list[Id]]
    filter: NotRequired[CampaignSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class ResumeCampaigns(TypedDict):
    """
    Resumes many campaigns at once: those of the ids, or those that match the filter.
    """

    type: Literal['resume_campaigns']
    campaign_ids: NotRequired[list[Id]]
    filter: NotRequired[CampaignSelection]
    request_id: NotRequired[Id | None]
    reason: NotRequired[str | None]
    dry_run: NotRequired[bool | None]


class FeedFilter(TypedDict):
    """
    What is to come; all that is given must fit. Nothing given: everything.
    """

    kinds: NotRequired[Kind | list[Kind]]
    job_ids: NotRequired[list[Id]]
    campaign_ids: NotRequired[list[Id]]
    campaign_id: NotRequired[Id]
    job_type: NotRequired[str]
    status: NotRequired[AnyState | list[AnyState]]


class Subscribe(TypedDict):
    """
    Narrows what comes on the tenant-wide socket.
    """

    type: Literal['subscribe']
    filter: NotRequired[FeedFilter | None]
    snapshot: NotRequired[bool]
    request_id: NotRequired[Id | None]


class WithdrawSchedule(TypedDict):
    """
    Takes a scheduled command back.
    """

    type: Literal['cancel_scheduled']
    schedule_id: CommandId
    request_id: NotRequired[Id | None]


class Ping(TypedDict):
    """
    Asks for a pong.
    """

    type: Literal['ping']
    request_id: NotRequired[Id | None]


class RefreshToken(TypedDict):
    """
    A new token of the same user and tenant, before the old one ends.
    """

    type: Literal['refresh_token']
    token: str
    request_id: NotRequired[Id | None]


class SubscribedJob(TypedDict):
    """
    The first message on a job's socket.
    """

    type: Literal['subscribed']
    channel: str
    tenant_id: Id
    job_id: Id


class SubscribedCampaign(TypedDict):
    """
    The first message on a campaign's socket.
    """

    type: Literal['subscribed']
    channel: str
    tenant_id: Id
    campaign_id: Id


class SubscribedTenant(TypedDict):
    """
    The first message on the tenant-wide socket.
    """

    type: Literal['subscribed']
    channel: str
    tenant_id: Id
    workers_online: NotRequired[Count]


class Worker(TypedDict):
    """
    Where it runs.
    """

    id: str
    name: str | None
    host: str | None
    since: Time | None
    client: NotRequired[str]
    client_host: NotRequired[str]


class JobSnapshot(TypedDict):
    """
    A job as it is now; messages about it with a higher seq are newer.
    """

    type: Literal['job_snapshot']
    job_id: Id
    id: Id
    tenant_id: Id
    campaign_id: Id | None
    job_type: str
    title: str | None
    status: JobState
    progress_percent: Percent
    items_total: int | None
    items_processed: Count
    items_succeeded: Count
    items_failed: Count
    current_item: str | None
    parameters: Any
    result: Any
    error_message: str | None
    max_retries: Count
    retry_count: Count
    run_after: OptionalTime
    timeout_seconds: int | None
    contact_lost_at: NotRequired[Time]
    created_by: str | None
    cancelled_by: str | None
    created_at: OptionalTime
    started_at: OptionalTime
    completed_at: OptionalTime
    cancelled_at: OptionalTime
    updated_at: OptionalTime
    running_seconds: float | None
    paused_seconds: float | None
    worker: NotRequired[Worker]
    rerun_of: NotRequired[Id]
    reruns: NotRequired[list[Id]]
    control: Control
    waiting_for: NotRequired[str]
    desired: NotRequired[Desired]
    seq: Seq
    workers_online: NotRequired[Count]


class JobCounts(TypedDict):
    pending: Count
    running: Count
    paused: Count
    completed: Count
    failed: Count
    cancelled: Count


class CampaignSnapshot(TypedDict):
    """
    A campaign as it is now; messages about it with a higher seq are newer.
    """

    type: Literal['campaign_snapshot']
    campaign_id: Id
    id: Id
    tenant_id: Id
    name: str | None
    is_active: bool
    is_open: bool
    status: CampaignState
    progress_percent: Percent
    items_total: Count
    items_processed: Count
    items_succeeded: Count
    items_failed: Count
    jobs_by_status: JobCounts
    created_by: str | None
    cancelled_by: str | None
    created_at: OptionalTime
    closed_at: OptionalTime
    completed_at: OptionalTime
    cancelled_at: OptionalTime
    updated_at: OptionalTime
    desired: NotRequired[Desired]
    seq: Seq
    workers_online: NotRequired[Count]


class CancelRequested(TypedDict):
    """
    The cancel was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
    """

    type: Literal['cancel_requested']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    workers_online: Count
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class CancelScheduled(TypedDict):
    """
    The cancel is kept and runs at its time, under the id of its schedule.
    """

    type: Literal['cancel_scheduled']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    schedule_id: CommandId
    run_at: Time
    request_id: NotRequired[Id]


class CancelSucceeded(TypedDict):
    """
    The cancel was carried out; to everybody who watches.
    """

    type: Literal['cancel_succeeded']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    status: AnyState
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class CancelFailed(TypedDict):
    """
    The cancel was not carried out, and error says why in words; to everybody who watches.
    """

    type: Literal['cancel_failed']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    error: str
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class PauseRequested(TypedDict):
    """
    The pause was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
    """

    type: Literal['pause_requested']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    workers_online: Count
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class PauseScheduled(TypedDict):
    """
    The pause is kept and runs at its time, under the id of its schedule.
    """

    type: Literal['pause_scheduled']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    schedule_id: CommandId
    run_at: Time
    request_id: NotRequired[Id]


class PauseSucceeded(TypedDict):
    """
    The pause was carried out; to everybody who watches.
    """

    type: Literal['pause_succeeded']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    status: AnyState
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class PauseFailed(TypedDict):
    """
    The pause was not carried out, and error says why in words; to everybody who watches.
    """

    type: Literal['pause_failed']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    error: str
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class ResumeRequested(TypedDict):
    """
    The resume was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
    """

    type: Literal['resume_requested']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    workers_online: Count
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class ResumeScheduled(TypedDict):
    """
    The resume is kept and runs at its time, under the id of its schedule.
    """

    type: Literal['resume_scheduled']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    schedule_id: CommandId
    run_at: Time
    request_id: NotRequired[Id]


class ResumeSucceeded(TypedDict):
    """
    The resume was carried out; to everybody who watches.
    """

    type: Literal['resume_succeeded']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    status: AnyState
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class ResumeFailed(TypedDict):
    """
    The resume was not carried out, and error says why in words; to everybody who watches.
    """

    type: Literal['resume_failed']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    command_id: CommandId
    error: str
    control: NotRequired[Control]
    request_id: NotRequired[Id]


class ScheduleWithdrawn(TypedDict):
    """
    A scheduled command was taken back.
    """

    type: Literal['schedule_withdrawn']
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    tenant_id: Id
    action: Action
    schedule_id: CommandId
    request_id: NotRequired[Id]


class JobProgress(TypedDict):
    """
    How far a job is.
    """

    type: Literal['job_progress']
    job_id: Id
    tenant_id: Id
    status: JobState
    progress_percent: Percent
    items_total: int | None
    items_processed: Count
    items_succeeded: Count
    items_failed: Count
    current_item: str | None
    seq: NotRequired[Seq]


class CampaignProgress(TypedDict):
    """
    How far a campaign is: its jobs are the items.
    """

    type: Literal['campaign_progress']
    campaign_id: Id
    tenant_id: Id
    status: CampaignState
    progress_percent: Percent
    items_total: int | None
    items_processed: Count
    items_succeeded: Count
    items_failed: Count
    current_item: str | None
    seq: NotRequired[Seq]


class JobStatus(TypedDict):
    """
    A job has changed its state, or where a command takes it.
    """

    type: Literal['job_status']
    job_id: Id
    tenant_id: Id
    status: JobState
    desired: NotRequired[Desired]
    contact_lost_at: NotRequired[str | None]
    seq: NotRequired[Seq]


class Line(TypedDict):
    line: int
    run: int
    at: Time
    stream: Literal['stdout', 'stderr', 'log', 'note']
    text: str
    open: NotRequired[bool]


class JobOutput(TypedDict):
    """
    Lines that the job has printed, for a socket that was opened with output=true.
    """

    type: Literal['job_output']
    job_id: Id
    tenant_id: Id
    lines: list[Line]
    left_out: NotRequired[int]


class CampaignStatus(TypedDict):
    """
    A campaign has changed its state.
    """

    type: Literal['campaign_status']
    campaign_id: Id
    tenant_id: Id
    status: CampaignState
    is_active: bool
    desired: NotRequired[Desired]
    seq: NotRequired[Seq]


class WorkersOnline(TypedDict):
    """
    The last worker for the tenant is gone (0), or there are some again.
    """

    type: Literal['workers_online']
    tenant_id: Id
    workers_online: Count


class FeedInterrupted(TypedDict):
    """
    What the socket shows may be old: news may not come. Only where the address asks for it (interruptions=true).
    """

    type: Literal['feed_interrupted']
    tenant_id: Id
    reason: Literal['redis', 'subscription', 'sql']
    since: Time


class FeedResumed(TypedDict):
    """
    News come again. On the tenant-wide socket: read again what you show; on another, what was missed has been sent.
    """

    type: Literal['feed_resumed']
    tenant_id: Id


class TokenExpiring(TypedDict):
    """
    The socket's token ends soon: send refresh_token.
    """

    type: Literal['token_expiring']
    expires_at: int
    expires_in: int


class TokenRefreshed(TypedDict):
    """
    The new token is taken.
    """

    type: Literal['token_refreshed']
    expires_at: int


class Pong(TypedDict):
    """
    The answer to ping.
    """

    type: Literal['pong']


class Error(TypedDict):
    """
    A message was not accepted, or a snapshot that was asked for cannot be given.
    """

    type: Literal['error']
    error: ErrorCode
    message: str
    retry_after: NotRequired[int]
    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    request_id: NotRequired[Id]


class Subscription(TypedDict):
    """
    The answer to subscribe: what comes after it is as the filter says.
    """

    type: Literal['subscription']
    filter: FeedFilter
    request_id: NotRequired[Id]


class Resynchronize(TypedDict):
    """
    Updates were missed: read again what you show.
    """

    type: Literal['resynchronize']
    tenant_id: Id


class BatchItem(TypedDict):
    """
    One job or campaign of a batch: its command, its end, or why none was made.
    """

    job_id: NotRequired[Id]
    campaign_id: NotRequired[Id]
    command_id: NotRequired[CommandId]
    status: NotRequired[AnyState]
    control: NotRequired[Control]
    error: NotRequired[str]
    message: NotRequired[str]


class BatchRequested(TypedDict):
    """
    What became of each resource of a batch; results follow.
    """

    type: Literal['batch_requested']
    batch_id: CommandId
    action: Action
    kind: Kind
    tenant_id: Id
    total: Count
    accepted: Count
    refused: Count
    workers_online: Count
    items: list[BatchItem]
    more: bool
    request_id: NotRequired[Id]


class BatchPreview(TypedDict):
    """
    What a batch would do, and what it would cost of the budget.
    """

    type: Literal['batch_preview']
    action: Action
    kind: Kind
    tenant_id: Id
    total: Count
    accepted: Count
    refused: Count
    cost: Count
    items: list[BatchItem]
    more: bool
    request_id: NotRequired[Id]


class BatchCompleted(TypedDict):
    """
    Every command of a batch has its result.
    """

    type: Literal['batch_completed']
    batch_id: CommandId
    tenant_id: Id
    action: Action
    total: Count
    succeeded: Count
    failed: Count
    refused: Count
    unknown: NotRequired[Count]
    items: NotRequired[list[BatchItem]]
    more: NotRequired[bool]
    request_id: NotRequired[Id]


JobClient: TypeAlias = CancelJob | PauseJob | ResumeJob | WithdrawSchedule | Ping | RefreshToken


CampaignClient: TypeAlias = CancelCampaign | PauseCampaign | ResumeCampaign | WithdrawSchedule | Ping | RefreshToken


TenantClient: TypeAlias = Subscribe | CancelJob | PauseJob | ResumeJob | CancelCampaign | PauseCampaign | ResumeCampaign | CancelJobs | PauseJobs | ResumeJobs | CancelCampaigns | PauseCampaigns | ResumeCampaigns | WithdrawSchedule | Ping | RefreshToken


JobServer: TypeAlias = SubscribedJob | JobSnapshot | JobStatus | JobProgress | JobOutput | WorkersOnline | FeedInterrupted | FeedResumed | TokenExpiring | TokenRefreshed | Pong | Error | ScheduleWithdrawn | CancelRequested | CancelScheduled | CancelSucceeded | CancelFailed | PauseRequested | PauseScheduled | PauseSucceeded | PauseFailed | ResumeRequested | ResumeScheduled | ResumeSucceeded | ResumeFailed


CampaignServer: TypeAlias = SubscribedCampaign | CampaignSnapshot | CampaignStatus | CampaignProgress | WorkersOnline | FeedInterrupted | FeedResumed | TokenExpiring | TokenRefreshed | Pong | Error | ScheduleWithdrawn | CancelRequested | CancelScheduled | CancelSucceeded | CancelFailed | PauseRequested | PauseScheduled | PauseSucceeded | PauseFailed | ResumeRequested | ResumeScheduled | ResumeSucceeded | ResumeFailed


TenantServer: TypeAlias = SubscribedTenant | Subscription | JobSnapshot | CampaignSnapshot | JobStatus | JobProgress | CampaignStatus | CampaignProgress | Resynchronize | BatchRequested | BatchPreview | BatchCompleted | WorkersOnline | FeedInterrupted | FeedResumed | TokenExpiring | TokenRefreshed | Pong | Error | ScheduleWithdrawn | CancelRequested | CancelScheduled | CancelSucceeded | CancelFailed | PauseRequested | PauseScheduled | PauseSucceeded | PauseFailed | ResumeRequested | ResumeScheduled | ResumeSucceeded | ResumeFailed


AnyMessage: TypeAlias = JobClient | CampaignClient | TenantClient | JobServer | CampaignServer | TenantServer
