/** A command or request that did not succeed. */
export class CommandError extends Error {
  /**
   * `code` is the protocol's stable word (`permission_denied`, `rate_limit_exceeded`, `not_found`, …); `failed` if a worker
   * has refused the command, with its reason as the message; `network` if nothing came back at all.
   */
  constructor(
    readonly code: string,
    message: string,
    /** Seconds after which it may be tried again. */
    readonly retryAfter?: number,
  ) {
    super(message);
    this.name = 'CommandError';
  }
}

/** What was thrown, as one: anything else means that there was no answer. */
export function asCommandError(error: unknown): CommandError {
  return error instanceof CommandError ? error : new CommandError('network', String(error));
}

/** The error that an answer of the service stands for. */
export function errorFrom(answer: { error?: string; message?: string; retry_after?: number }): CommandError {
  const code = answer.error || 'internal';
  return new CommandError(code, answer.message || code, answer.retry_after);
}
