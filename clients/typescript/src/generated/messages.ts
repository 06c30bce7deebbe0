// Generated from schema/messages.schema.json by `npm run generate`. Do not edit.

/**
 * Messages between a page or program (client) and a gateway (server); docs/protocol.md says what they mean. A client must pass over fields and types that it does not know: new ones may appear.
 */
export type AnyMessage = JobClient | CampaignClient | TenantClient | JobServer | CampaignServer | TenantServer;
/**
 * What a job's socket takes.
 */
export type JobClient =
  CancelJobMessage | PauseJobMessage | ResumeJobMessage | WithdrawScheduleMessage | PingMessage | RefreshTokenMessage;
/**
 * A tenant's, job's, campaign's or request's id.
 */
export type Id = string;
/**
 * The id of a command, a schedule or a batch.
 */
export type CommandId = string;
/**
 * What a campaign's socket takes.
 */
export type CampaignClient =
  | CancelCampaignMessage
  | PauseCampaignMessage
  | ResumeCampaignMessage
  | WithdrawScheduleMessage
  | PingMessage
  | RefreshTokenMessage;
/**
 * What the tenant-wide socket takes.
 */
export type TenantClient =
  | SubscribeMessage
  | CancelJobMessage
  | PauseJobMessage
  | ResumeJobMessage
  | CancelCampaignMessage
  | PauseCampaignMessage
  | ResumeCampaignMessage
  | CancelJobsMessage
  | PauseJobsMessage
  | ResumeJobsMessage
  | CancelCampaignsMessage
  | PauseCampaignsMessage
  | ResumeCampaignsMessage
  | WithdrawScheduleMessage
  | PingMessage
  | RefreshTokenMessage;
export type Kind = "job" | "campaign";
export type AnyState = "pending" | "running" | "active" | "paused" | "completed" | "failed" | "cancelled";
/**
 * What comes on a job's socket.
 */
export type JobServer =
  | SubscribedJobMessage
  | JobSnapshotMessage
  | JobStatusMessage
  | JobProgressMessage
  | JobOutputMessage
  | WorkersOnlineMessage
  | FeedInterruptedMessage
  | FeedResumedMessage
  | TokenExpiringMessage
  | TokenRefreshedMessage
  | PongMessage
  | ErrorMessage
  | ScheduleWithdrawnMessage
  | CancelRequestedMessage
  | CancelScheduledMessage
  | CancelSucceededMessage
  | CancelFailedMessage
  | PauseRequestedMessage
  | PauseScheduledMessage
  | PauseSucceededMessage
  | PauseFailedMessage
  | ResumeRequestedMessage
  | ResumeScheduledMessage
  | ResumeSucceededMessage
  | ResumeFailedMessage;
export type JobState = "pending" | "running" | "paused" | "completed" | "failed" | "cancelled";
export type Percent = number;
export type Count = number;
/**
 * RFC 3339.
 */
export type OptionalTime = string | null;
/**
 * RFC 3339.
 */
export type Time = string;
/**
 * What a command on a job reaches: the work itself, or its row alone.
 */
export type Control = "live" | "row";
/**
 * Where a command under way takes it.
 */
export type Desired = "running" | "active" | "paused" | "cancelled";
/**
 * Of two messages about one resource, the one with the higher number is the newer. Updates that another system publishes have none.
 */
export type Seq = number;
/**
 * The stable word of an error. Pass one that you do not know on as it is: there may be new ones.
 */
export type ErrorCode =
  | "invalid_message"
  | "unknown_type"
  | "permission_denied"
  | "rate_limit_exceeded"
  | "request_conflict"
  | "queue_full"
  | "unavailable"
  | "outcome_unknown"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "too_many_connections"
  | "conflict"
  | "method_not_allowed"
  | "too_large"
  | "unsupported_encoding"
  | "timeout"
  | "internal";
export type Action = "cancel" | "pause" | "resume";
/**
 * What comes on a campaign's socket.
 */
export type CampaignServer =
  | SubscribedCampaignMessage
  | CampaignSnapshotMessage
  | CampaignStatusMessage
  | CampaignProgressMessage
  | WorkersOnlineMessage
  | FeedInterruptedMessage
  | FeedResumedMessage
  | TokenExpiringMessage
  | TokenRefreshedMessage
  | PongMessage
  | ErrorMessage
  | ScheduleWithdrawnMessage
  | CancelRequestedMessage
  | CancelScheduledMessage
  | CancelSucceededMessage
  | CancelFailedMessage
  | PauseRequestedMessage
  | PauseScheduledMessage
  | PauseSucceededMessage
  | PauseFailedMessage
  | ResumeRequestedMessage
  | ResumeScheduledMessage
  | ResumeSucceededMessage
  | ResumeFailedMessage;
export type CampaignState = "active" | "paused" | "completed" | "cancelled";
/**
 * What comes on the tenant-wide socket.
 */
export type TenantServer =
  | SubscribedTenantMessage
  | SubscriptionMessage
  | JobSnapshotMessage
  | CampaignSnapshotMessage
  | JobStatusMessage
  | JobProgressMessage
  | CampaignStatusMessage
  | CampaignProgressMessage
  | ResynchronizeMessage
  | BatchRequestedMessage
  | BatchPreviewMessage
  | BatchCompletedMessage
  | WorkersOnlineMessage
  | FeedInterruptedMessage
  | FeedResumedMessage
  | TokenExpiringMessage
  | TokenRefreshedMessage
  | PongMessage
  | ErrorMessage
  | ScheduleWithdrawnMessage
  | CancelRequestedMessage
  | CancelScheduledMessage
  | CancelSucceededMessage
  | CancelFailedMessage
  | PauseRequestedMessage
  | PauseScheduledMessage
  | PauseSucceededMessage
  | PauseFailedMessage
  | ResumeRequestedMessage
  | ResumeScheduledMessage
  | ResumeSucceededMessage
  | ResumeFailedMessage;

/**
 * Cancels a job.
 */
export interface CancelJobMessage {
  type: "cancel_job";
  /**
   * Which job: needed on the tenant-wide socket; on a job's own socket it may be left out, and names no other.
   */
  job_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Pauses a job.
 */
export interface PauseJobMessage {
  type: "pause_job";
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  job_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Resumes a job.
 */
export interface ResumeJobMessage {
  type: "resume_job";
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  job_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Takes a scheduled command back.
 */
export interface WithdrawScheduleMessage {
  type: "cancel_scheduled";
  schedule_id: CommandId;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
}
/**
 * Asks for a pong.
 */
export interface PingMessage {
  type: "ping";
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
}
/**
 * A new token of the same user and tenant, before the old one ends.
 */
export interface RefreshTokenMessage {
  type: "refresh_token";
  token: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
}
/**
 * Cancels a campaign.
 */
export interface CancelCampaignMessage {
  type: "cancel_campaign";
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  campaign_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Pauses a campaign.
 */
export interface PauseCampaignMessage {
  type: "pause_campaign";
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  campaign_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Resumes a campaign.
 */
export interface ResumeCampaignMessage {
  type: "resume_campaign";
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  campaign_id?: string;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * When it shall run, 366 days ahead at most; not together with delay_seconds.
   */
  run_at?: string | null;
  /**
   * In how many seconds it shall run.
   */
  delay_seconds?: number | null;
}
/**
 * Narrows what comes on the tenant-wide socket.
 */
export interface SubscribeMessage {
  type: "subscribe";
  filter?: FeedFilter | null;
  /**
   * With true, a snapshot of each of the 1 to 100 jobs and campaigns that the filter names follows the answer.
   */
  snapshot?: boolean;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
}
/**
 * What is to come; all that is given must fit. Nothing given: everything.
 */
export interface FeedFilter {
  kinds?: Kind | [Kind, ...Kind[]];
  /**
   * Of jobs, only these: up to 1,000.
   *
   * @minItems 1
   */
  job_ids?: [Id, ...Id[]];
  /**
   * Of campaigns, only these: up to 1,000.
   *
   * @minItems 1
   */
  campaign_ids?: [Id, ...Id[]];
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  campaign_id?: string;
  /**
   * Jobs of this type.
   */
  job_type?: string;
  status?: AnyState | [AnyState, ...AnyState[]];
}
/**
 * Cancels many jobs at once: those of the ids, or those that match the filter.
 */
export interface CancelJobsMessage {
  type: "cancel_jobs";
  /**
   * Up to 1,000 jobs.
   *
   * @minItems 1
   */
  job_ids?: [Id, ...Id[]];
  filter?: JobSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * All that match and have not ended, the newest 1,000 of them. Not together with ids.
 */
export interface JobSelection {
  status?:
    ("pending" | "running" | "paused") | ["pending" | "running" | "paused", ...("pending" | "running" | "paused")[]];
  campaign_id?: Id | null;
  job_type?: string | null;
}
/**
 * Pauses many jobs at once: those of the ids, or those that match the filter.
 */
export interface PauseJobsMessage {
  type: "pause_jobs";
  /**
   * Up to 1,000 jobs.
   *
   * @minItems 1
   */
  job_ids?: [Id, ...Id[]];
  filter?: JobSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * Resumes many jobs at once: those of the ids, or those that match the filter.
 */
export interface ResumeJobsMessage {
  type: "resume_jobs";
  /**
   * Up to 1,000 jobs.
   *
   * @minItems 1
   */
  job_ids?: [Id, ...Id[]];
  filter?: JobSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * Cancels many campaigns at once: those of the ids, or those that match the filter.
 */
export interface CancelCampaignsMessage {
  type: "cancel_campaigns";
  /**
   * Up to 1,000 campaigns.
   *
   * @minItems 1
   */
  campaign_ids?: [Id, ...Id[]];
  filter?: CampaignSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * All that match and have not ended, the newest 1,000 of them. Not together with ids.
 */
export interface CampaignSelection {
  status?: ("active" | "paused") | ["active" | "paused", ...("active" | "paused")[]];
}
/**
 * Pauses many campaigns at once: those of the ids, or those that match the filter.
 */
export interface PauseCampaignsMessage {
  type: "pause_campaigns";
  /**
   * Up to 1,000 campaigns.
   *
   * @minItems 1
   */
  campaign_ids?: [Id, ...Id[]];
  filter?: CampaignSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * Resumes many campaigns at once: those of the ids, or those that match the filter.
 */
export interface ResumeCampaignsMessage {
  type: "resume_campaigns";
  /**
   * Up to 1,000 campaigns.
   *
   * @minItems 1
   */
  campaign_ids?: [Id, ...Id[]];
  filter?: CampaignSelection;
  /**
   * Your own name for it: the same one within 24 hours is answered with the first answer, and nothing runs twice.
   */
  request_id?: Id | null;
  /**
   * Why, for the audit trail.
   */
  reason?: string | null;
  /**
   * Only say what it would do and cost.
   */
  dry_run?: boolean | null;
}
/**
 * The first message on a job's socket.
 */
export interface SubscribedJobMessage {
  type: "subscribed";
  channel: string;
  tenant_id: Id;
  job_id: Id;
}
/**
 * A job as it is now; messages about it with a higher seq are newer.
 */
export interface JobSnapshotMessage {
  type: "job_snapshot";
  job_id: Id;
  id: Id;
  tenant_id: Id;
  campaign_id: Id | null;
  job_type: string;
  title: string | null;
  status: JobState;
  progress_percent: Percent;
  items_total: number | null;
  items_processed: Count;
  items_succeeded: Count;
  items_failed: Count;
  current_item: string | null;
  /**
   * Any JSON, with every digit as its author wrote it.
   */
  parameters: unknown;
  /**
   * Any JSON, with every digit as its author wrote it; null until it has completed.
   */
  result: unknown;
  /**
   * Of a very long text the beginning and the end.
   */
  error_message: string | null;
  max_retries: Count;
  retry_count: Count;
  run_after: OptionalTime;
  timeout_seconds: number | null;
  /**
   * Since when the program that hosts it has not been heard of.
   */
  contact_lost_at?: string;
  created_by: string | null;
  cancelled_by: string | null;
  created_at: OptionalTime;
  started_at: OptionalTime;
  completed_at: OptionalTime;
  cancelled_at: OptionalTime;
  updated_at: OptionalTime;
  /**
   * How long it has been running, without the time that it stood paused or waited; null where it ran before this was recorded.
   */
  running_seconds: number | null;
  /**
   * How long it has been standing paused.
   */
  paused_seconds: number | null;
  /**
   * Where it runs.
   */
  worker?: {
    id: string;
    /**
     * The worker's name for people.
     */
    name: string | null;
    /**
     * The machine or container.
     */
    host: string | null;
    since: Time | null;
    /**
     * Of work in a foreign process: its client software.
     */
    client?: string;
    /**
     * And the machine that it runs on.
     */
    client_host?: string;
  };
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  rerun_of?: string;
  /**
   * Its newest reruns, newest first.
   */
  reruns?: Id[];
  control: Control;
  /**
   * What a pending job lacks, such as "a worker for import".
   */
  waiting_for?: string;
  desired?: Desired;
  seq: Seq;
  /**
   * Workers alive for the tenant: in the first snapshot on a resource's own socket.
   */
  workers_online?: number;
}
/**
 * A job has changed its state, or where a command takes it.
 */
export interface JobStatusMessage {
  type: "job_status";
  job_id: Id;
  tenant_id: Id;
  status: JobState;
  desired?: Desired;
  /**
   * Since when the program that hosts it has not been heard of; null: it is heard of again.
   */
  contact_lost_at?: string | null;
  seq?: Seq;
}
/**
 * How far a job is.
 */
export interface JobProgressMessage {
  type: "job_progress";
  job_id: Id;
  tenant_id: Id;
  status: JobState;
  progress_percent: Percent;
  items_total: number | null;
  items_processed: Count;
  items_succeeded: Count;
  items_failed: Count;
  current_item: string | null;
  seq?: Seq;
}
/**
 * Lines that the job has printed, for a socket that was opened with output=true.
 */
export interface JobOutputMessage {
  type: "job_output";
  job_id: Id;
  tenant_id: Id;
  lines: {
    /**
     * Grows by one with each line of the job.
     */
    line: number;
    /**
     * In which run of the job.
     */
    run: number;
    at: Time;
    /**
     * log: said by the job's code; note: said by Wheelhouse.
     */
    stream: "stdout" | "stderr" | "log" | "note";
    text: string;
    /**
     * Its end has not come: what has become of it comes with the same number, and takes its place.
     */
    open?: boolean;
  }[];
  /**
   * So many lines before them are not kept any more.
   */
  left_out?: number;
}
/**
 * The last worker for the tenant is gone (0), or there are some again.
 */
export interface WorkersOnlineMessage {
  type: "workers_online";
  tenant_id: Id;
  workers_online: Count;
}
/**
 * What the socket shows may be old: news may not come. Only where the address asks for it (interruptions=true).
 */
export interface FeedInterruptedMessage {
  type: "feed_interrupted";
  tenant_id: Id;
  /**
   * What is away: Redis, what is published there, or the database.
   */
  reason: "redis" | "subscription" | "sql";
  /**
   * RFC 3339.
   */
  since: string;
}
/**
 * News come again. On the tenant-wide socket: read again what you show; on another, what was missed has been sent.
 */
export interface FeedResumedMessage {
  type: "feed_resumed";
  tenant_id: Id;
}
/**
 * The socket's token ends soon: send refresh_token.
 */
export interface TokenExpiringMessage {
  type: "token_expiring";
  /**
   * Seconds since 1970.
   */
  expires_at: number;
  /**
   * Seconds from now.
   */
  expires_in: number;
}
/**
 * The new token is taken.
 */
export interface TokenRefreshedMessage {
  type: "token_refreshed";
  /**
   * Seconds since 1970.
   */
  expires_at: number;
}
/**
 * The answer to ping.
 */
export interface PongMessage {
  type: "pong";
}
/**
 * A message was not accepted, or a snapshot that was asked for cannot be given.
 */
export interface ErrorMessage {
  type: "error";
  error: ErrorCode;
  /**
   * In words, for people.
   */
  message: string;
  /**
   * Whole seconds until it may be otherwise.
   */
  retry_after?: number;
  job_id?: Id;
  campaign_id?: Id;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * A scheduled command was taken back.
 */
export interface ScheduleWithdrawnMessage {
  type: "schedule_withdrawn";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  action: Action;
  schedule_id: CommandId;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The cancel was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
 */
export interface CancelRequestedMessage {
  type: "cancel_requested";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  workers_online: Count;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The cancel is kept and runs at its time, under the id of its schedule.
 */
export interface CancelScheduledMessage {
  type: "cancel_scheduled";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  schedule_id: CommandId;
  run_at: Time;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The cancel was carried out; to everybody who watches.
 */
export interface CancelSucceededMessage {
  type: "cancel_succeeded";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  status: AnyState;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The cancel was not carried out, and error says why in words; to everybody who watches.
 */
export interface CancelFailedMessage {
  type: "cancel_failed";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  error: string;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The pause was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
 */
export interface PauseRequestedMessage {
  type: "pause_requested";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  workers_online: Count;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The pause is kept and runs at its time, under the id of its schedule.
 */
export interface PauseScheduledMessage {
  type: "pause_scheduled";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  schedule_id: CommandId;
  run_at: Time;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The pause was carried out; to everybody who watches.
 */
export interface PauseSucceededMessage {
  type: "pause_succeeded";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  status: AnyState;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The pause was not carried out, and error says why in words; to everybody who watches.
 */
export interface PauseFailedMessage {
  type: "pause_failed";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  error: string;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The resume was accepted: its result follows. With no workers online it waits for one. It names a job or a campaign.
 */
export interface ResumeRequestedMessage {
  type: "resume_requested";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  workers_online: Count;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The resume is kept and runs at its time, under the id of its schedule.
 */
export interface ResumeScheduledMessage {
  type: "resume_scheduled";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  schedule_id: CommandId;
  run_at: Time;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The resume was carried out; to everybody who watches.
 */
export interface ResumeSucceededMessage {
  type: "resume_succeeded";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  status: AnyState;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The resume was not carried out, and error says why in words; to everybody who watches.
 */
export interface ResumeFailedMessage {
  type: "resume_failed";
  job_id?: Id;
  campaign_id?: Id;
  tenant_id: Id;
  command_id: CommandId;
  error: string;
  control?: Control;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * The first message on a campaign's socket.
 */
export interface SubscribedCampaignMessage {
  type: "subscribed";
  channel: string;
  tenant_id: Id;
  campaign_id: Id;
}
/**
 * A campaign as it is now; messages about it with a higher seq are newer.
 */
export interface CampaignSnapshotMessage {
  type: "campaign_snapshot";
  campaign_id: Id;
  id: Id;
  tenant_id: Id;
  name: string | null;
  is_active: boolean;
  is_open: boolean;
  status: CampaignState;
  progress_percent: Percent;
  items_total: Count;
  items_processed: Count;
  items_succeeded: Count;
  items_failed: Count;
  jobs_by_status: JobCounts;
  created_by: string | null;
  cancelled_by: string | null;
  created_at: OptionalTime;
  closed_at: OptionalTime;
  completed_at: OptionalTime;
  cancelled_at: OptionalTime;
  updated_at: OptionalTime;
  desired?: Desired;
  seq: Seq;
  /**
   * Workers alive for the tenant: in the first snapshot on a resource's own socket.
   */
  workers_online?: number;
}
export interface JobCounts {
  pending: Count;
  running: Count;
  paused: Count;
  completed: Count;
  failed: Count;
  cancelled: Count;
}
/**
 * A campaign has changed its state.
 */
export interface CampaignStatusMessage {
  type: "campaign_status";
  campaign_id: Id;
  tenant_id: Id;
  status: CampaignState;
  is_active: boolean;
  desired?: Desired;
  seq?: Seq;
}
/**
 * How far a campaign is: its jobs are the items.
 */
export interface CampaignProgressMessage {
  type: "campaign_progress";
  campaign_id: Id;
  tenant_id: Id;
  status: CampaignState;
  progress_percent: Percent;
  items_total: number | null;
  items_processed: Count;
  items_succeeded: Count;
  items_failed: Count;
  current_item: string | null;
  seq?: Seq;
}
/**
 * The first message on the tenant-wide socket.
 */
export interface SubscribedTenantMessage {
  type: "subscribed";
  channel: string;
  tenant_id: Id;
  /**
   * Workers alive for the tenant; left out where they could not be counted.
   */
  workers_online?: number;
}
/**
 * The answer to subscribe: what comes after it is as the filter says.
 */
export interface SubscriptionMessage {
  type: "subscription";
  filter: FeedFilter;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * Updates were missed: read again what you show.
 */
export interface ResynchronizeMessage {
  type: "resynchronize";
  tenant_id: Id;
}
/**
 * What became of each resource of a batch; results follow.
 */
export interface BatchRequestedMessage {
  type: "batch_requested";
  batch_id: CommandId;
  action: Action;
  kind: Kind;
  tenant_id: Id;
  total: Count;
  accepted: Count;
  refused: Count;
  workers_online: Count;
  items: BatchItem[];
  /**
   * The filter fits others, which were left out.
   */
  more: boolean;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * One job or campaign of a batch: its command, its end, or why none was made.
 */
export interface BatchItem {
  job_id?: Id;
  campaign_id?: Id;
  command_id?: CommandId;
  status?: AnyState;
  control?: Control;
  /**
   * A code where no command was made; in words where a command failed.
   */
  error?: string;
  message?: string;
}
/**
 * What a batch would do, and what it would cost of the budget.
 */
export interface BatchPreviewMessage {
  type: "batch_preview";
  action: Action;
  kind: Kind;
  tenant_id: Id;
  total: Count;
  accepted: Count;
  refused: Count;
  cost: Count;
  items: BatchItem[];
  /**
   * The filter fits others, which were left out.
   */
  more: boolean;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
/**
 * Every command of a batch has its result.
 */
export interface BatchCompletedMessage {
  type: "batch_completed";
  batch_id: CommandId;
  tenant_id: Id;
  action: Action;
  total: Count;
  succeeded: Count;
  failed: Count;
  refused: Count;
  unknown?: Count;
  /**
   * Over HTTP alone.
   */
  items?: BatchItem[];
  /**
   * Over HTTP alone.
   */
  more?: boolean;
  /**
   * A tenant's, job's, campaign's or request's id.
   */
  request_id?: string;
}
