/** Texts about leases and requests that appear in more than one place. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IHost, ILease, IRequest, LeaseState } from '../wire/types';
import { formatDuration } from './format';

/** How far a request has come. */
export function positionText(
  request: IRequest,
  trans: TranslationBundle
): string {
  return request.position === null
    ? trans.__('waiting')
    : trans.__('waiting, number %1', request.position);
}

/** When it will probably be granted; empty when that is unknown. */
export function etaText(
  { eta_at }: IRequest,
  now: number,
  trans: TranslationBundle
): string {
  if (eta_at === null) {
    return '';
  }
  const minutes = Math.ceil((eta_at - now) / 60);
  return minutes > 1
    ? trans.__('expected in about %1', formatDuration(minutes * 60))
    : trans.__('expected within a minute');
}

/** Whether the lease is of a simulated device. */
export function isSimulated(lease: ILease, host: IHost): boolean {
  return (
    lease.enforced_by === 'simulated' ||
    host.devices.some(
      device =>
        device.simulated && lease.slices.some(s => s.device_id === device.id)
    )
  );
}

export function stateText(state: LeaseState, trans: TranslationBundle): string {
  switch (state) {
    case 'granted':
      return trans.__('granted, not in use yet');
    case 'active':
      return trans.__('in use');
    case 'suspended':
      return trans.__('suspended');
    case 'releasing':
      return trans.__('being released');
    case 'ended':
      return trans.__('ended');
  }
}
