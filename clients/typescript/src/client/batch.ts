import { type CommandOptions, newId } from './commands.js';
import { CommandError } from './errors.js';
import type { Http } from './http.js';
import type { Action, BatchCompleted, BatchPreview } from './types.js';

/** With which resources: up to 1,000 ids, or all that match a filter and have not ended. */
export type BatchTarget =
  | { jobIds: string[] }
  | { campaignIds: string[] }
  | { jobs: { status?: string | string[]; campaignId?: string; jobType?: string } }
  | { campaigns: { status?: string | string[] } };

const WAIT_SECONDS = 30;
const TRIES = 20;

/** One action on many jobs or campaigns. */
export class Batch {
  readonly #action: Action;
  readonly #target: BatchTarget;
  readonly #http: Http;

  constructor(action: Action, target: BatchTarget, http: Http) {
    this.#action = action;
    this.#target = target;
    this.#http = http;
  }

  /** What it would do, and what it would cost of the user's budget. Nothing is done. Throws `CommandError`. */
  preview(signal?: AbortSignal): Promise<BatchPreview> {
    return this.#http.json('/api/v1/batch', { method: 'POST', body: { ...this.#body(), dry_run: true }, signal });
  }

  /**
   * Does it, and settles with all results. Throws `CommandError`. Where an answer is lost it asks again under the same
   * name, so that nothing is done twice.
   */
  async run({ reason, requestId, signal }: CommandOptions = {}): Promise<BatchCompleted> {
    const body = { ...this.#body(), request_id: requestId ?? newId(), reason };
    for (let tries = 1; ; tries++) {
      try {
        const path = `/api/v1/batch?wait=${WAIT_SECONDS}`;
        const answer = await this.#http.request<BatchCompleted>(path, { method: 'POST', body, signal });
        if (answer.status === 200) return answer.body;
      } catch (error) {
        const unsure = error instanceof CommandError && ['network', 'outcome_unknown'].includes(error.code);
        if (!unsure || tries >= TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1_000 * Math.random() * Math.min(tries, 5)));
      }
    }
  }

  #body(): object {
    const target = this.#target;
    if ('jobIds' in target) return { type: `${this.#action}_jobs`, job_ids: target.jobIds };
    if ('campaignIds' in target) return { type: `${this.#action}_campaigns`, campaign_ids: target.campaignIds };
    if ('campaigns' in target) return { type: `${this.#action}_campaigns`, filter: target.campaigns };
    const { status, campaignId, jobType } = target.jobs;
    return { type: `${this.#action}_jobs`, filter: { status, campaign_id: campaignId, job_type: jobType } };
  }
}
