/** What is said of a lease that will be taken back. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { ILease, INotice } from '../wire/types';
import { formatCountdown, formatDuration } from './format';

/** Whether the end can be put off: that of a lease that is needed elsewhere cannot. */
export function canExtend(lease: ILease): boolean {
  return lease.notice ? lease.notice.kind === 'idle' : lease.ends_at !== null;
}

/** What Extend would do, or why it would do nothing. */
export function extendText(
  lease: ILease,
  seconds: number,
  trans: TranslationBundle
): string {
  if (lease.notice?.kind === 'preempt') {
    return trans.__('It is needed by somebody who goes first');
  }
  if (lease.ends_at === null) {
    return lease.notice
      ? trans.__('Keep it, as if it were used now')
      : trans.__('It has no end that could be moved');
  }
  return trans.__('Keep it for %1 more', formatDuration(seconds));
}

/** Why the slice is taken back, when, and what that means; `left` says when. */
export function noticeText(
  lease: ILease,
  notice: INotice,
  left: string,
  trans: TranslationBundle
): string {
  const end =
    notice.kind === 'idle'
      ? trans.__(
          'Nobody uses this slice. It is taken back in %1, unless it is used or extended.',
          left
        )
      : trans.__(
          'Somebody who goes first needs the room. This slice ends in %1 and cannot be extended; save what you need.',
          left
        );
  return `${end} ${afterwardsText(lease, trans)}`.trim();
}

/** The same in as many letters as a notification shows, of the slice of `name`. */
export function noticeLine(
  lease: ILease,
  notice: INotice,
  name: string,
  left: string,
  trans: TranslationBundle
): string {
  const end =
    notice.kind === 'idle'
      ? trans.__('%1: nobody uses its slice; it ends in %2.', name, left)
      : trans.__(
          '%1: others who go first need its slice; it ends in %2 and cannot be extended.',
          name,
          left
        );
  return `${end} ${afterwardsText(lease, trans)}`.trim();
}

/** What becomes of the holder. */
export function afterwardsText(
  lease: ILease,
  trans: TranslationBundle
): string {
  return lease.holder.kind === 'kernel'
    ? trans.__('The kernel keeps running, on the CPU.')
    : '';
}

/** To the second, for what is looked at. */
export function exactLeft(
  notice: INotice,
  now: number,
  trans: TranslationBundle
): string {
  const left = notice.ends_at - now;
  return left > 0 ? formatCountdown(left) : trans.__('a moment');
}

/** In steps of a minute and then of ten seconds, for what is read aloud whenever it changes. */
export function roughLeft(
  notice: INotice,
  now: number,
  trans: TranslationBundle
): string {
  const left = notice.ends_at - now;
  const step = left > 60 ? 60 : 10;
  return left > 0
    ? formatDuration(Math.ceil(left / step) * step)
    : trans.__('a moment');
}
