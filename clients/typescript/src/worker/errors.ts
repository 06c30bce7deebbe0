import type { RefusedMessage, Status } from '../generated/worker.js';

/** What `checkpoint()` throws, and what `signal` is aborted with, when the work is to end. Let it pass through. */
export abstract class Stopped extends Error {}

/** Somebody cancelled the job. Thrown by job code of its own accord, it ends the job as cancelled. */
export class Cancelled extends Stopped {
  /** `by` is the user who asked; `reason` is what that user gave as the reason. */
  constructor(
    readonly by?: string,
    readonly reason?: string,
  ) {
    super(`Cancelled${by ? ` by ${by}` : ''}${reason ? `: ${reason}` : ''}`);
    this.name = 'Cancelled';
  }
}

/** The job has been running for longer than its `timeoutSeconds`, paused time not counted. */
export class TimedOut extends Stopped {
  constructor(readonly reason?: string) {
    super(reason || 'The job has been running for longer than its timeout');
    this.name = 'TimedOut';
  }
}

/** The work ends here and goes on later, in another run. Job code may throw it itself. */
export class HandedBack extends Stopped {
  /** `runAfter`: when it is to go on; without it, as soon as somebody takes it. */
  constructor(
    message = 'The job is handed back and goes on in another run',
    readonly runAfter?: Date,
  ) {
    super(message);
    this.name = 'HandedBack';
  }
}

/** The run is not this process's any more: another process has the job, or its row has ended. */
export class Lost extends Stopped {
  constructor(message: string) {
    super(message);
    this.name = 'Lost';
  }
}

/** The worker did not take the job, so it was not begun. */
export class Refused extends Error {
  /**
   * `ended`: the job is completed, failed or cancelled (`status`), and is never run again. `elsewhere`: another process
   * works on it. `denied`: the token is not for this tenant. `invalid`: the message says what is wrong.
   */
  readonly code: RefusedMessage['error'];
  readonly status: Status | undefined;
  /** Seconds after which the answer may be another one. */
  readonly retryAfter: number | undefined;

  constructor(message: RefusedMessage) {
    super(message.message);
    this.name = 'Refused';
    this.code = message.error;
    this.status = message.status;
    this.retryAfter = message.retry_after;
  }
}

/** An error as the one text that a job's row keeps. */
export function errorText(error: unknown): string {
  try {
    if (!(error instanceof Error)) return String(error) || 'unknown error';
    const text = error.name && error.name !== 'Error' ? `${error.name}: ${error.message}` : error.message;
    return text || error.name || 'unknown error';
  } catch {
    return 'unknown error'; // It has no text (an object without a prototype), or code of its own that throws.
  }
}
