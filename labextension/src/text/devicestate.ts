/** Texts about where the device memory of a lease is. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type {
  ILease,
  IDeviceState,
  ISuspendCapability,
  DisplayState
} from '../wire/types';
import { formatBytes, formatDuration } from './format';

/** A lease that may be suspended. */
export type SuspendableLease = ILease & { residence: IDeviceState };

export function isSuspendable(lease: ILease): lease is SuspendableLease {
  return lease.residence !== null && lease.state !== 'ended';
}

/** Whether none of its memory is on its devices. */
export function isOffDevice({ residence }: ILease): boolean {
  return residence?.phase === 'parked' || residence?.phase === 'lost';
}

/** Whether it occupies capacity of its devices; capacity is reserved for a lease that waits to resume. */
export function occupiesDevice(lease: ILease): boolean {
  return !isOffDevice(lease) || (lease.residence?.wanted_at ?? null) !== null;
}

/** The display state in one word. */
export function displayStateLabel(
  standing: DisplayState,
  trans: TranslationBundle
): string {
  switch (standing) {
    case 'held':
      return trans.__('held');
    case 'warm':
      return trans.__('warm');
    case 'suspended':
      return trans.__('suspended');
    case 'pinned':
      return trans.__('pinned');
    case 'lost':
      return trans.__('lost');
  }
}

/** What the display state means now, in one sentence; `now` in seconds since the epoch. */
export function displayStateText(
  lease: SuspendableLease,
  now: number,
  trans: TranslationBundle
): string {
  const { residence } = lease;
  switch (residence.standing) {
    case 'held':
      return trans.__('A cell uses it.');
    case 'warm':
      return warmText(residence, trans);
    case 'suspended':
      return suspendedText(lease, now, trans);
    case 'pinned':
      return trans.__('Stays on its device: %1', residence.why);
    case 'lost':
      return residence.why
        ? trans.__(
            'What it kept on its device is lost: %1. Restart the kernel.',
            withoutFullStop(residence.why)
          )
        : trans.__('What it kept on its device is lost. Restart the kernel.');
  }
}

function warmText(residence: IDeviceState, trans: TranslationBundle): string {
  if (residence.phase === 'parking') {
    return trans.__('Its memory is moving to the host.');
  }
  if (residence.asked === 'suspend') {
    return trans.__('About to be suspended.');
  }
  return residence.failures > 0 && residence.why
    ? trans.__(
        'Could not be suspended: %1. It is tried again later.',
        withoutFullStop(residence.why)
      )
    : trans.__('Idle; suspended when its memory is needed.');
}

function suspendedText(
  lease: SuspendableLease,
  now: number,
  trans: TranslationBundle
): string {
  const { note, phase, state_bytes, wanted_at } = lease.residence;
  const where = hostMemoryText(lease, trans);
  if (phase === 'restoring') {
    return trans.__('%1, on its way back.', where);
  }
  if (wanted_at === null && state_bytes === 0) {
    return trans.__('%1; its capacity comes back when a cell needs it.', where);
  }
  if (wanted_at === null) {
    return trans.__('%1; comes back when a cell needs it.', where);
  }
  const since = formatDuration(now - wanted_at);
  return note
    ? trans.__(
        '%1; has waited %2 for capacity to come back: %3',
        where,
        since,
        note
      )
    : trans.__('%1; has waited %2 for capacity to come back.', where, since);
}

/** How much of it is where, such as "9 GiB in host memory"; after a restart there is nothing to keep. */
export function hostMemoryText(
  { residence, slices }: SuspendableLease,
  trans: TranslationBundle
): string {
  if (residence.state_bytes === 0) {
    return trans.__('Nothing on its device');
  }
  return residence.state_bytes === null
    ? trans.__('In host memory')
    : trans.__(
        '%1 in host memory',
        formatBytes(residence.state_bytes * slices.length)
      );
}

/** What becomes of idle notebooks on this host; empty where the server does not say. */
export function suspendSupportText(
  suspension: ISuspendCapability | null,
  trans: TranslationBundle
): string {
  switch (suspension?.tier) {
    case 'checkpoint':
      return trans.__(
        'Idle notebooks give their memory back: by driver checkpoint'
      );
    case 'offload':
      return suspension.why
        ? trans.__(
            'Idle notebooks give back what they have registered: %1',
            suspension.why
          )
        : trans.__('Idle notebooks give back what they have registered');
    case 'simulated':
      return trans.__('Idle notebooks give their memory back: simulated');
    case 'off':
      return suspension?.why
        ? trans.__('Idle notebooks keep their memory: %1', suspension.why)
        : trans.__('Idle notebooks keep their memory');
    default:
      return '';
  }
}

function withoutFullStop(sentence: string): string {
  return sentence.replace(/[.\s]+$/, '');
}
