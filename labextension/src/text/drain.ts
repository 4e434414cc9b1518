/** Texts about devices on which nothing new is granted, because somebody has said so. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IDrain, IHost } from '../wire/types';
import { formatMoment, type ICalendar } from './window';

/** Whether who looks may take devices out of placement, and back. */
export function mayDrain(host: IHost): boolean {
  return host.roles.includes('operator') || host.roles.includes('admin');
}

/** Such as "Drained until today 14:00 by ops: a fan is replaced". */
export function drainText(
  drain: IDrain,
  now: number,
  trans: TranslationBundle,
  calendar: ICalendar = {}
): string {
  const parts = [
    drain.kind === 'quarantine'
      ? trans.__('In quarantine')
      : trans.__('Drained')
  ];
  if (drain.until !== null) {
    const until = formatMoment(drain.until, now, trans, calendar);
    parts.push(trans.__('until %1', until));
  }
  if (drain.created_by) {
    parts.push(trans.__('by %1', drain.created_by));
  }
  const text = parts.join(' ');
  return drain.reason ? `${text}: ${drain.reason}` : text;
}
