/** What the user may do about where the device memory of a lease is. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type {
  IHost,
  ILease,
  IDeviceState,
  ISuspendCapability
} from '../wire/types';

/** An action on a lease that may be suspended; the last part of its route. */
export type SuspendAction = 'suspend' | 'resume' | 'pin' | 'unpin';

/** Why an action makes no sense for a lease now; empty where it does. */
export function whyNotAllowed(
  action: SuspendAction,
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
  switch (action) {
    case 'suspend':
      return whyNotSuspend(residence, host?.suspend ?? null, trans);
    case 'resume':
      return whyNotResume(residence, trans);
    case 'pin':
      return residence.is_kept ? trans.__('It is pinned already') : '';
    case 'unpin':
      return residence.is_kept ? '' : trans.__('It is not pinned');
  }
}

function whyNotSuspend(
  residence: IDeviceState,
  suspension: ISuspendCapability | null,
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

function whyNotResume(
  residence: IDeviceState,
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

/** The label of its button. */
export function actionLabel(
  action: SuspendAction,
  trans: TranslationBundle
): string {
  switch (action) {
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

/** What an action does, in one sentence. */
export function actionCaption(
  action: SuspendAction,
  trans: TranslationBundle
): string {
  switch (action) {
    case 'suspend':
      return trans.__(
        'Move what an idle kernel keeps on its device to host memory, until a cell needs it'
      );
    case 'resume':
      return trans.__('Bring what the kernel kept on its device back now');
    case 'pin':
      return trans.__('Keep it on its device, even when its memory is needed');
    case 'unpin':
      return trans.__('Let it be suspended while it is idle');
  }
}
