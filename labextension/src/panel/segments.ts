import type { TranslationBundle } from '@jupyterlab/translation';

import { occupiesDevice } from '../text/devicestate';
import { holderName, parseFraction } from '../text/format';
import { isOwn } from '../text/ownership';
import type { IDevice, ILease, ISlice } from '../wire/types';

/** A part of the bar. */
export interface ISegment {
  key: string;
  kind: 'own' | 'other' | 'foreign' | 'free';
  label: string;
  /** Share of the device, 0 to 1; all segments together make 1. */
  share: number;
  /** The share as text, e.g. "1/4", where the label does not say it. */
  text?: string;
  leaseId?: string;
}

/** A slice on a device, and the lease it belongs to. */
export interface ISliceOnDevice {
  lease: ILease;
  slice: ISlice;
}

/** The slices of leases on a device, oldest first. */
export function slicesOn(
  device: IDevice,
  leases: readonly ILease[]
): ISliceOnDevice[] {
  return leases
    .filter(lease => lease.state !== 'ended')
    .flatMap(lease => lease.slices.map(slice => ({ lease, slice })))
    .filter(({ slice }) => slice.device_id === device.id)
    .sort((a, b) => a.lease.granted_at - b.lease.granted_at);
}

/** The parts of a device's bar: slices that occupy it by age, then processes without a lease, then what is free. */
export function segments(
  device: IDevice,
  leases: readonly ILease[],
  kernelId: string | null,
  trans: TranslationBundle
): ISegment[] {
  const taken: ISegment[] = slicesOn(device, leases)
    .filter(({ lease }) => occupiesDevice(lease))
    .map(({ lease, slice }) => ({
      key: `${lease.id}:${slice.uuid}`,
      kind: isOwn(lease.holder, kernelId) ? 'own' : 'other',
      label: holderName(lease.holder),
      share: parseFraction(slice.fraction),
      text: slice.fraction,
      leaseId: lease.id
    }));
  const foreign =
    (device.foreign_memory_bytes ?? 0) / (device.memory_bytes || 1);
  if (foreign > 0) {
    taken.push(
      segment('foreign', trans.__('others, without a lease'), foreign)
    );
  }
  const rest = 1 - taken.reduce((sum, part) => sum + part.share, 0);
  if (rest > 0.001) {
    taken.push(segment('free', freeText(device, trans), rest));
  }
  return scaled(taken);
}

function segment(
  kind: 'foreign' | 'free',
  label: string,
  share: number
): ISegment {
  return { key: kind, kind, label, share };
}

/** What the server would still grant, which may be less than what is not held. */
function freeText(device: IDevice, trans: TranslationBundle): string {
  if (device.problem || parseFraction(device.free_fraction) === 0) {
    return trans.__('not available');
  }
  return device.free_fraction === '1'
    ? trans.__('free')
    : trans.__('%1 free', device.free_fraction);
}

/** Shares that add up to more than the device (processes without a lease on a leased GPU) are drawn to scale with one another. */
function scaled(parts: ISegment[]): ISegment[] {
  const sum = Math.max(
    1,
    parts.reduce((total, part) => total + part.share, 0)
  );
  return parts.map(part => ({ ...part, share: part.share / sum }));
}
