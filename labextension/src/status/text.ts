import type { TranslationBundle } from '@jupyterlab/translation';

import { leaseBytes } from '../text/ceiling';
import { conditionTitle, errorsOf } from '../text/condition';
import {
  isSuspendable,
  isOffDevice,
  hostMemoryText,
  displayStateLabel
} from '../text/devicestate';
import { formatDuration, sliceMemoryText } from '../text/format';
import { etaText, isSimulated } from '../text/lease';
import { exactTimeLeft, noticeShortText } from '../text/notice';
import type { ILeaseManager } from '../tokens';
import type { ILease, IRequest } from '../wire/types';

/** One short line for the status bar, e.g. `GPU 1/4 · 6.2 / 20 GiB · 41 min`. */
export function statusText(
  manager: ILeaseManager,
  kernelId: string | null,
  trans: TranslationBundle
): string {
  if (manager.status === 'loading') {
    return trans.__('slices …');
  }
  if (manager.status === 'disconnected') {
    return trans.__('slices: disconnected');
  }
  const lease = kernelId ? manager.leaseOf(kernelId) : null;
  if (lease) {
    return leaseText(lease, manager, trans);
  }
  const waiting = kernelId ? manager.requestOf(kernelId) : null;
  return waiting ? waitingText(waiting, manager, trans) : trans.__('no slice');
}

function waitingText(
  request: IRequest,
  manager: ILeaseManager,
  trans: TranslationBundle
): string {
  const { position, spec } = request;
  return [
    trans.__('%1 waiting, number %2', spec, position ?? '–'),
    etaText(request, manager.now(), trans)
  ]
    .filter(Boolean)
    .join(' · ');
}

function leaseText(
  lease: ILease,
  manager: ILeaseManager,
  trans: TranslationBundle
): string {
  const isCPU = lease.slices.every(slice => slice.kind === 'cpu');
  const spec = lease.spec.replace(/^[cg]pu:/, '');
  const parts = [`${isCPU ? trans.__('CPU') : trans.__('GPU')} ${spec}`];
  parts.push(...stateParts(lease, manager, trans));
  if (lease.notice) {
    const left = exactTimeLeft(lease.notice, manager.now(), trans);
    parts.push(noticeShortText(lease.notice, left, trans));
  } else if (lease.ends_at !== null) {
    parts.push(formatDuration(lease.ends_at - manager.now()));
  }
  if (manager.host && isSimulated(lease, manager.host)) {
    parts.push(trans.__('simulated'));
  }
  return parts.join(' · ');
}

/** Its gravest error; and what it uses on its device, or that it is not there. */
function stateParts(
  lease: ILease,
  manager: ILeaseManager,
  trans: TranslationBundle
): string[] {
  const [gravest] = errorsOf(lease);
  const parts = gravest ? [conditionTitle(gravest.kind, trans)] : [];
  const use = manager.usage?.leases[lease.id];
  const standing = lease.residence?.standing;
  if (isSuspendable(lease) && isOffDevice(lease)) {
    return standing === 'lost'
      ? [...parts, trans.__('state lost, restart the kernel')]
      : [...parts, trans.__('suspended'), hostMemoryText(lease, trans)];
  }
  if (use && use.memory_bytes !== null) {
    parts.push(sliceMemoryText(use, leaseBytes(lease), trans));
  }
  return standing ? [...parts, displayStateLabel(standing, trans)] : parts;
}
