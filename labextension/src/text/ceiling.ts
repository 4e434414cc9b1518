/** What a lease with a ceiling may use now. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { ILease, ISlice, ISliceLimit } from '../wire/types';

/** `1/4`, or `1/4, up to 1/1, now 3/4`. */
export function shareText(
  lease: ILease,
  slice: ISlice,
  trans: TranslationBundle
): string {
  const limit = limitOf(lease, slice);
  if (limit === null || lease.up_to === null) {
    return slice.fraction;
  }
  return trans.__(
    '%1, up to %2, now %3',
    slice.fraction,
    wholeText(lease.up_to),
    wholeText(limit.fraction)
  );
}

/** Memory that may be used of a slice now. */
export function usableBytes(lease: ILease, slice: ISlice): number {
  return limitOf(lease, slice)?.memory_bytes ?? slice.memory_bytes;
}

function limitOf(lease: ILease, slice: ISlice): ISliceLimit | null {
  const { limits } = lease;
  return limits.find(limit => limit.device_id === slice.device_id) ?? null;
}

/** All of a device, lest it be taken for a number of devices. */
function wholeText(share: string): string {
  return share === '1' ? '1/1' : share;
}
