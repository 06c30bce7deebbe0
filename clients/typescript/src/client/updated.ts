import type { Message } from './types.js';

const FINAL = ['completed', 'failed', 'cancelled'];

/** A row with what an update says of it; undefined where that is older, or comes after its end. */
export function updated<T extends { status: string; seq?: number; desired?: string }>(
  row: T,
  message: Message,
): T | undefined {
  const { type, tenant_id, ...fields } = message;
  if ((fields.seq ?? 0) <= (row.seq ?? -1)) return undefined;
  if (FINAL.includes(row.status) && fields.status !== row.status) return undefined;
  const next = { ...row, ...fields } as T;
  // A change of state says where a command takes it, or that none does.
  if (type.endsWith('_status') && !fields.desired) delete next.desired;
  return next;
}
