/** Texts about a lease that will be reclaimed or preempted. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { ILease, INotice } from '../wire/types';
import { formatCountdown, formatDuration } from './format';

/** Whether the end can be put off: that of a lease that is preempted cannot. */
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
    return trans.__('A higher-priority request needs it');
  }
  if (lease.ends_at !== null) {
    return trans.__('Keep it for %1 more', formatDuration(seconds));
  }
  return lease.notice
    ? trans.__('Keep it, as if it were used now')
    : trans.__('It has no end that could be moved');
}

/** Why and when the slice ends, and what that means; `left` says when. */
export function noticeText(
  lease: ILease,
  notice: INotice,
  left: string,
  trans: TranslationBundle
): string {
  const end =
    notice.kind === 'idle'
      ? trans.__(
          'This slice is idle. It is reclaimed in %1, unless it is used or extended.',
          left
        )
      : trans.__(
          'A higher-priority request needs the capacity. This slice is preempted in %1 and cannot be extended; save what you need.',
          left
        );
  return `${end} ${afterEndText(lease, trans)}`.trim();
}

/** The same about the slice of `name`, short enough for a notification. */
export function noticeLine(
  lease: ILease,
  notice: INotice,
  name: string,
  left: string,
  trans: TranslationBundle
): string {
  const end =
    notice.kind === 'idle'
      ? trans.__('%1: its slice is idle; it is reclaimed in %2.', name, left)
      : trans.__(
          '%1: a higher-priority request preempts its slice in %2; it cannot be extended.',
          name,
          left
        );
  return `${end} ${afterEndText(lease, trans)}`.trim();
}

/** The same in a few words, for the status bar. */
export function noticeShortText(
  notice: INotice,
  left: string,
  trans: TranslationBundle
): string {
  return notice.kind === 'idle'
    ? trans.__('reclaimed in %1', left)
    : trans.__('preempted in %1', left);
}

/** That the slice of `name` has ended as its notice said. */
export function endedLine(
  lease: ILease,
  notice: INotice,
  name: string,
  trans: TranslationBundle
): string {
  const end =
    notice.kind === 'idle'
      ? trans.__('%1: its idle slice was reclaimed.', name)
      : trans.__('%1: its slice was preempted.', name);
  return `${end} ${afterEndText(lease, trans)}`.trim();
}

/** What becomes of the holder once the lease has ended. */
export function afterEndText(lease: ILease, trans: TranslationBundle): string {
  return lease.holder.kind === 'kernel'
    ? trans.__('The kernel keeps running, on the CPU.')
    : '';
}

/** The time left to the second, for what is looked at. */
export function exactTimeLeft(
  notice: INotice,
  now: number,
  trans: TranslationBundle
): string {
  const left = notice.ends_at - now;
  return left > 0 ? formatCountdown(left) : trans.__('a moment');
}

/** The time left in steps of a minute and then of ten seconds, for what is read aloud whenever it changes. */
export function roundedTimeLeft(
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
