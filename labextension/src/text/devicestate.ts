/** How the device memory of a lease stands: what is said of it, and what may be asked of it. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type {
  IHost,
  ILease,
  IResidence,
  ISuspension,
  Standing
} from '../wire/types';
import { formatBytes, formatDuration } from './format';

/** What the user may ask of a lease that may be suspended; the last part of its route. */
export type SuspendVerb = 'suspend' | 'resume' | 'pin' | 'unpin';

/** A lease that may be suspended. */
export type ResidentLease = ILease & { residence: IResidence };

export function hasResidence(lease: ILease): lease is ResidentLease {
  return lease.residence !== null && lease.state !== 'ended';
}

/** Whether nothing of it is on its devices. */
export function isAway({ residence }: ILease): boolean {
  return residence?.phase === 'parked' || residence?.phase === 'lost';
}

/** Whether it takes room on its devices; that of one which waits to come back is promised to it. */
export function takesRoom(lease: ILease): boolean {
  return !isAway(lease) || (lease.residence?.wanted_at ?? null) !== null;
}

export function standingWord(
  standing: Standing,
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

/** What the standing means now, in one sentence; `now` in seconds since the epoch. */
export function standingText(
  lease: ResidentLease,
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
            withoutStop(residence.why)
          )
        : trans.__('What it kept on its device is lost. Restart the kernel.');
  }
}

function warmText(residence: IResidence, trans: TranslationBundle): string {
  if (residence.phase === 'parking') {
    return trans.__('Its memory is moving to the host.');
  }
  if (residence.asked === 'suspend') {
    return trans.__('About to be suspended.');
  }
  return residence.failures > 0 && residence.why
    ? trans.__(
        'Could not be suspended: %1. It is tried again later.',
        withoutStop(residence.why)
      )
    : trans.__('Idle; suspended when somebody needs its memory.');
}

function suspendedText(
  lease: ResidentLease,
  now: number,
  trans: TranslationBundle
): string {
  const { note, phase, state_bytes, wanted_at } = lease.residence;
  const where = keptText(lease, trans);
  if (phase === 'restoring') {
    return trans.__('%1, on its way back.', where);
  }
  if (wanted_at === null && state_bytes === 0) {
    return trans.__('%1; its room comes back when a cell needs it.', where);
  }
  if (wanted_at === null) {
    return trans.__('%1; comes back when a cell needs it.', where);
  }
  const since = formatDuration(now - wanted_at);
  return note
    ? trans.__(
        '%1; has waited %2 for room to come back: %3',
        where,
        since,
        note
      )
    : trans.__('%1; has waited %2 for room to come back.', where, since);
}

/** How much of it is where, such as "9 GiB in host memory"; after a restart there is nothing to keep. */
export function keptText(
  { residence, slices }: ResidentLease,
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

/** Why a verb makes no sense for a lease now; empty where it does. */
export function refusal(
  verb: SuspendVerb,
  lease: ILease,
  host: IHost | null,
  trans: TranslationBundle
): string {
  const { residence } = lease;
  if (residence === null) {
    return trans.__('This slice is never suspended');
  }
  if (residence.phase === 'lost') {
    return trans.__('Its state is lost; restart the kernel');
  }
  switch (verb) {
    case 'suspend':
      return suspendRefusal(residence, host?.suspend ?? null, trans);
    case 'resume':
      return resumeRefusal(residence, trans);
    case 'pin':
      return residence.is_kept ? trans.__('It is pinned already') : '';
    case 'unpin':
      return residence.is_kept ? '' : trans.__('Nobody has pinned it');
  }
}

function suspendRefusal(
  residence: IResidence,
  suspension: ISuspension | null,
  trans: TranslationBundle
): string {
  if (residence.phase !== 'resident' || residence.asked === 'suspend') {
    return trans.__('It is suspended, or about to be');
  }
  if (residence.is_busy) {
    return trans.__('A cell uses it');
  }
  if (residence.standing === 'pinned') {
    return trans.__('It must stay: %1', residence.why);
  }
  return suspension?.tier === 'off'
    ? trans.__('This host cannot suspend: %1', suspension.why)
    : '';
}

function resumeRefusal(
  residence: IResidence,
  trans: TranslationBundle
): string {
  if (residence.phase === 'resident') {
    return residence.asked === 'suspend'
      ? ''
      : trans.__('It is on its device already');
  }
  return residence.phase === 'restoring' || residence.wanted_at !== null
    ? trans.__('It is about to come back already')
    : '';
}

/** A verb as a button shows it. */
export function verbLabel(verb: SuspendVerb, trans: TranslationBundle): string {
  switch (verb) {
    case 'suspend':
      return trans.__('Suspend');
    case 'resume':
      return trans.__('Resume');
    case 'pin':
      return trans.__('Pin');
    case 'unpin':
      return trans.__('Unpin');
  }
}

/** What a verb does, in one sentence. */
export function verbCaption(
  verb: SuspendVerb,
  trans: TranslationBundle
): string {
  switch (verb) {
    case 'suspend':
      return trans.__(
        'Move what an idle kernel keeps on its device to host memory, until a cell needs it'
      );
    case 'resume':
      return trans.__('Bring what the kernel kept on its device back now');
    case 'pin':
      return trans.__('Keep it on its device, whoever needs the memory');
    case 'unpin':
      return trans.__('Let it be suspended while it is idle');
  }
}

/** What becomes of idle notebooks on this host; empty where the server does not say. */
export function suspensionText(
  suspension: ISuspension | null,
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

function withoutStop(sentence: string): string {
  return sentence.replace(/[.\s]+$/, '');
}
