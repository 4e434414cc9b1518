import type { TranslationBundle } from '@jupyterlab/translation';

import { formatBytesOf, formatDuration } from './format';
import { etaText, isSimulated } from './leasetext';
import { exactLeft } from './notice';
import type { ILeaseManager } from './tokens';
import type { ILease, IRequest } from './wire';

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
  const total = lease.slices.reduce((sum, s) => sum + s.memory_bytes, 0);
  const used = manager.usage?.leases[lease.id]?.memory_bytes ?? null;
  const spec = lease.spec.replace(/^[cg]pu:/, '');
  const parts = [`${isCPU ? trans.__('CPU') : trans.__('GPU')} ${spec}`];
  if (used !== null) {
    parts.push(formatBytesOf(used, total));
  }
  if (lease.notice) {
    const left = exactLeft(lease.notice, manager.now(), trans);
    parts.push(trans.__('taken back in %1', left));
  } else if (lease.ends_at !== null) {
    parts.push(formatDuration(lease.ends_at - manager.now()));
  }
  if (manager.host && isSimulated(lease, manager.host)) {
    parts.push(trans.__('simulated'));
  }
  return parts.join(' · ');
}
