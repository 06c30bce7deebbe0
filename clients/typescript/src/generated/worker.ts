// Generated from schema/worker.schema.json by `npm run generate`. Do not edit.

/**
 * Messages between a foreign worker process (client) and a Wheelhouse worker (server); docs/worker-protocol.md says what they mean. A client must ignore fields that it does not know.
 */
export type AnyMessage = Client | Server;
export type Client =
  | HelloMessage
  | AttachMessage
  | ReachedMessage
  | ProgressMessage
  | FailedItemMessage
  | SaveMessage
  | LogMessage
  | EndMessage
  | ExpectMessage;
/**
 * A tenant's, job's, campaign's, worker's or session's id.
 */
export type Id = string;
export type Count = number;
/**
 * The client's number of a job in this session.
 */
export type Ref = number;
export type Server =
  | WelcomeMessage
  | AttachedMessage
  | ExpectedMessage
  | RefusedMessage
  | OrderMessage
  | SavedMessage
  | EndedMessage
  | LostMessage
  | ErrorMessage;
export type Status = "pending" | "running" | "paused" | "completed" | "failed" | "cancelled";

/**
 * The first message on each socket.
 */
export interface HelloMessage {
  type: "hello";
  v: 1;
  /**
   * The client's name for people.
   */
  worker: string;
  session: Id;
  /**
   * The machine or container that it runs on, for people. Workers before 0.2 refuse it.
   */
  host?: string;
  software?: string;
  pid?: Count;
}
/**
 * The client is about to begin a job, or holds a run of it.
 */
export interface AttachMessage {
  type: "attach";
  ref: Ref;
  tenant_id: Id;
  job_id: Id;
  /**
   * What kind of work it is, for example celery:app.tasks.import. Without it: foreign.
   */
  job_type?: string;
  /**
   * For people.
   */
  title?: string;
  campaign_id?: Id;
  /**
   * What the job was given: any JSON.
   */
  parameters?: unknown;
  /**
   * How long the job may run, in seconds, without the time it is paused.
   */
  timeout_seconds?: number;
  /**
   * How often the row becomes pending again after a failure that is not permanent. Without it: 0.
   */
  max_retries?: number;
  /**
   * The user on whose behalf it was published.
   */
  created_by?: string;
  /**
   * The run that this session holds since an earlier socket.
   */
  run?: number;
}
/**
 * What an order has led to.
 */
export interface ReachedMessage {
  type: "reached";
  ref: Ref;
  order: Count;
  state: "still" | "ended" | "refused";
  /**
   * With refused: why, as a sentence for whoever sent the command.
   */
  error?: string;
}
/**
 * The newest figures; what is left out stays.
 */
export interface ProgressMessage {
  type: "progress";
  ref: Ref;
  items_total?: Count;
  items_processed?: Count;
  items_succeeded?: Count;
  items_failed?: Count;
  progress_percent?: number;
  current_item?: string | null;
}
/**
 * An item that could not be done.
 */
export interface FailedItemMessage {
  type: "failed_item";
  ref: Ref;
  item: string;
  error: string;
}
/**
 * A resume point.
 */
export interface SaveMessage {
  type: "save";
  ref: Ref;
  n: number;
  /**
   * Where the job goes on in its next run: any JSON.
   */
  point: unknown;
}
/**
 * Lines for the job's output. Workers before it close the socket on it.
 */
export interface LogMessage {
  type: "log";
  ref: Ref;
  /**
   * Where they come from; log where it is left out.
   */
  stream?: "stdout" | "stderr" | "log";
  /**
   * 1 to 1,000, without their ends.
   */
  lines: string[];
}
/**
 * The work has ended by itself.
 */
export interface EndMessage {
  type: "end";
  ref: Ref;
  how: "completed" | "failed" | "cancelled" | "handed_back";
  /**
   * With completed: any JSON.
   */
  result?: unknown;
  /**
   * With failed: why. With handed_back: why this try has failed, where the client's own queue tries again.
   */
  error?: string;
  /**
   * With failed: trying again would not help.
   */
  permanent?: boolean;
  /**
   * With handed_back: when it is to go on.
   */
  run_after?: string;
}
/**
 * The job has been published and has not begun.
 */
export interface ExpectMessage {
  type: "expect";
  ref: Ref;
  tenant_id: Id;
  job_id: Id;
  /**
   * What kind of work it is, for example celery:app.tasks.import. Without it: foreign.
   */
  job_type?: string;
  /**
   * For people.
   */
  title?: string;
  campaign_id?: Id;
  /**
   * What the job was given: any JSON.
   */
  parameters?: unknown;
  /**
   * How long the job may run, in seconds, without the time it is paused.
   */
  timeout_seconds?: number;
  /**
   * How often the row becomes pending again after a failure that is not permanent. Without it: 0.
   */
  max_retries?: number;
  /**
   * The user on whose behalf it was published.
   */
  created_by?: string;
  run_after?: string;
}
/**
 * The answer to hello.
 */
export interface WelcomeMessage {
  type: "welcome";
  v: 1;
  session: Id;
  reattach_seconds: number;
  /**
   * The largest frame in bytes.
   */
  max_frame: number;
}
/**
 * The job is this session's.
 */
export interface AttachedMessage {
  type: "attached";
  ref: Ref;
  run: number;
  status: "running" | "paused";
  /**
   * The last saved point: any JSON, null where there is none.
   */
  resume_point: unknown;
}
/**
 * The row of a published job is there.
 */
export interface ExpectedMessage {
  type: "expected";
  ref: Ref;
  status: Status;
}
/**
 * An attach or expect that is not taken.
 */
export interface RefusedMessage {
  type: "refused";
  ref: Ref;
  error: "ended" | "elsewhere" | "denied" | "invalid";
  status?: Status;
  message: string;
  /**
   * Seconds until it may be otherwise.
   */
  retry_after?: number;
}
/**
 * What the work is to do.
 */
export interface OrderMessage {
  type: "order";
  ref: Ref;
  order: number;
  do: "pause" | "resume" | "cancel" | "leave" | "time_out";
  /**
   * The user who asked, or wheelhouse.
   */
  by: string;
  reason?: string | null;
  /**
   * The grace is over: end the process that the work runs in.
   */
  kill?: boolean;
}
/**
 * A resume point, and all before it, is in SQL.
 */
export interface SavedMessage {
  type: "saved";
  ref: Ref;
  n: number;
}
/**
 * The end of the run is in SQL.
 */
export interface EndedMessage {
  type: "ended";
  ref: Ref;
  status: Status;
}
/**
 * The run is not this session's any more.
 */
export interface LostMessage {
  type: "lost";
  ref: Ref;
  message: string;
}
/**
 * A message that could not be used.
 */
export interface ErrorMessage {
  type: "error";
  ref?: Ref;
  error: string;
  message: string;
}
