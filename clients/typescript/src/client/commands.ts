import type { Connection } from './connection.js';
import { CommandError, errorFrom } from './errors.js';
import type { Action, CommandResult, Kind, Message } from './types.js';

/** What a command may carry. */
export interface CommandOptions {
  /** Why, for the audit trail: 500 characters at most. */
  reason?: string;
  /** Your own name for it. The same again within 24 h gets the first answer, and nothing runs twice. Default: a new one. */
  requestId?: string;
  /** Ends the waiting. The command itself, once sent, still runs. */
  signal?: AbortSignal;
}

/** When a scheduled command is to run. */
export interface ScheduleOptions extends CommandOptions {
  /** So long from now: seconds, or a text such as `90s`, `15m`, `8h`, `7d`. */
  in?: number | string;
  /** At this moment. */
  at?: Date;
}

/** A command that is to run later. */
export interface ScheduledCommand {
  id: string;
  runAt: Date;
  /** Takes it back. Rejects with `CommandError` `not_found` if it is gone. */
  withdraw(): Promise<void>;
}

interface Pending {
  message: object;
  commandId?: string;
  settle(answer: Message): void;
  fail(error: unknown): void;
}

const AGAIN = 1_000;

/** Commands on their way. Each is sent again, under the same name, on every new connection until its result has come. */
export class Commands {
  readonly #pending = new Map<string, Pending>();

  readonly #connection: Pick<Connection, 'hold' | 'send' | 'state' | 'isUp'>;

  constructor(connection: Pick<Connection, 'hold' | 'send' | 'state' | 'isUp'>) {
    this.#connection = connection;
  }

  /** Settles with the result, or with the schedule's message if it was given a time. Rejects with `CommandError`. */
  run(kind: Kind, id: string, action: Action, options: ScheduleOptions): Promise<Message> {
    const requestId = options.requestId ?? newId();
    const message = {
      type: `${action}_${kind}`,
      [`${kind}_id`]: id,
      request_id: requestId,
      // What is undefined does not travel.
      reason: options.reason,
      run_at: options.at?.toISOString(),
      delay_seconds: options.in === undefined ? undefined : seconds(options.in),
    };
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const { status, reason } = this.#connection.state.get();
    if (status === 'closed') return Promise.reject(closed(reason));
    const release = this.#connection.hold();
    return new Promise<Message>((resolve, reject) => {
      const abort = () => fail(signal?.reason);
      const done = () => {
        this.#pending.delete(requestId);
        signal?.removeEventListener('abort', abort);
        release();
      };
      const fail = (error: unknown) => {
        done();
        reject(error);
      };
      const settle = (answer: Message) => {
        done();
        resolve(answer);
      };
      signal?.addEventListener('abort', abort);
      this.#pending.set(requestId, { message, settle, fail });
      if (this.#connection.isUp) this.#connection.send(message);
    });
  }

  opened(): void {
    for (const { message } of this.#pending.values()) this.#connection.send(message);
  }

  ended(reason: string | undefined): void {
    for (const pending of [...this.#pending.values()]) pending.fail(closed(reason));
  }

  message(message: Message): void {
    const pending = this.#find(message);
    if (!pending) return;
    const what = message.type.split('_').pop();
    if (what === 'requested') pending.commandId = message.command_id;
    else if (what === 'succeeded' || what === 'scheduled') pending.settle(message);
    else if (what === 'failed') pending.fail(new CommandError('failed', message.error ?? 'failed'));
    else if (message.error === 'outcome_unknown') {
      setTimeout(() => this.#again(pending), (message.retry_after ?? 0) * 1000 || AGAIN);
    } else if (message.type === 'error') pending.fail(errorFrom(message));
  }

  #find({ request_id, command_id }: Message): Pending | undefined {
    const named = request_id === undefined ? undefined : this.#pending.get(request_id);
    if (named || command_id === undefined) return named;
    return [...this.#pending.values()].find((pending) => pending.commandId === command_id);
  }

  #again(pending: Pending): void {
    if ([...this.#pending.values()].includes(pending)) this.#connection.send(pending.message);
  }
}

export function asResult(message: Message): CommandResult {
  return message as unknown as CommandResult;
}

function closed(reason: string | undefined): CommandError {
  return new CommandError('closed', reason || 'The connection is closed');
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

function seconds(time: number | string): number {
  if (typeof time === 'number') return Math.round(time);
  const [, count, unit] = /^(\d+)([smhd])$/.exec(time) ?? [];
  if (!count || !unit) throw new TypeError(`"${time}" is no length of time: give seconds, 15m, 8h, 7d`);
  return Number(count) * (UNITS[unit] as number);
}

/** A name that nobody else has; pages without TLS have no `randomUUID`. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
