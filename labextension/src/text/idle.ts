import type { TranslationBundle } from '@jupyterlab/translation';

import type { IHost, ILease } from '../wire/types';
import { formatDuration } from './format';

/** For how many seconds a lease has been idle; null until its queue shows that, and where idleness is not measured. */
export function idleSeconds(
  lease: ILease,
  host: IHost | null,
  now: number
): number | null {
  const queue = host?.queues.find(({ name }) => name === lease.queue);
  const policy = queue?.idle ?? null;
  if (policy === null || !isMeasured(lease)) {
    return null;
  }
  const seconds = now - lease.active_at;
  return seconds >= policy.badge_seconds ? seconds : null;
}

function isMeasured(lease: ILease): lease is ILease & { active_at: number } {
  const isEnding = lease.state === 'releasing' || lease.state === 'ended';
  return lease.active_at !== null && !isEnding;
}

/** Such as "idle 34 min"; empty while it is in use. */
export function idleText(
  lease: ILease,
  host: IHost | null,
  now: number,
  trans: TranslationBundle
): string {
  const seconds = idleSeconds(lease, host, now);
  return seconds === null ? '' : trans.__('idle %1', formatDuration(seconds));
}
