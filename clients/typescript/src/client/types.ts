import type { components } from '../generated/api.js';
import type {
  CampaignClient,
  CampaignServer,
  JobClient,
  JobServer,
  TenantClient,
  TenantServer,
} from '../generated/messages.js';

type Schemas = components['schemas'];

export type Job = Schemas['Job'];
export type Campaign = Schemas['Campaign'];
/** A job as it is now; `desired` says where a command that is under way takes it. */
export type JobNow = Schemas['JobNow'];
export type CampaignNow = Schemas['CampaignNow'];
export type Schedule = Schemas['Schedule'];
export type BatchPreview = Schemas['BatchPreview'];
export type BatchCompleted = Schemas['BatchCompleted'];
/** What a command has led to. */
export type CommandResult = Schemas['Result'];

/** Every message that the service sends today, by its `type`. */
export type ServerMessage = TenantServer | JobServer | CampaignServer;
/** Every message that it takes. */
export type ClientMessage = TenantClient | JobClient | CampaignClient;

export type Kind = 'job' | 'campaign';
export type Action = 'cancel' | 'pause' | 'resume';

/** A message of the realtime protocol; the project's docs/protocol.md lists them. Unknown types may come. */
export interface Message {
  type: string;
  job_id?: string;
  campaign_id?: string;
  tenant_id?: string;
  seq?: number;
  status?: string;
  desired?: string;
  request_id?: string;
  command_id?: string;
  schedule_id?: string;
  run_at?: string;
  error?: string;
  message?: string;
  retry_after?: number;
  workers_online?: number;
  [field: string]: unknown;
}
