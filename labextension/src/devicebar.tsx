import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import {
  formatBytes,
  formatBytesOf,
  formatDuration,
  formatPercent,
  holderName,
  parseFraction
} from './format';
import { isOwn } from './ownership';
import type { IDevice, ILease, ISlice, IUsage, IUse } from './wire';

export interface IDeviceProps {
  device: IDevice;
  /** All live leases of the host; those on other devices are left out here. */
  leases: readonly ILease[];
  usage: IUsage | null;
  kernelId: string | null;
  /** Seconds since the epoch by the server's clock. */
  now: number;
  trans: TranslationBundle;
}

/** One part of the bar. */
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

interface IPiece {
  lease: ILease;
  slice: ISlice;
}

/** A device: what it is, how it is cut, and what each slice uses. */
export function DeviceBlock(props: IDeviceProps): JSX.Element {
  const { device, trans } = props;
  const title = deviceTitle(device, trans);
  const pieces = piecesOn(device, props.leases);
  return (
    <li className="jp-AIStack-device" data-device-id={device.id}>
      <div className="jp-AIStack-deviceHead">
        <h4 className="jp-AIStack-deviceName" title={device.id}>
          <span className="jp-AIStack-deviceKind">{title}</span>
          <span className="jp-AIStack-deviceModel">{device.name}</span>
        </h4>
        {device.simulated && <SimulatedBadge trans={trans} />}
      </div>
      <DeviceUse {...props} />
      {device.problem && <Warning text={device.problem} />}
      <Bar segments={segments(props)} title={title} trans={trans} />
      {(pieces.length > 0 || device.foreign_memory_bytes > 0) && (
        <ul className="jp-AIStack-slices">
          {pieces.map(piece => (
            <SliceRow
              key={`${piece.lease.id}:${piece.slice.uuid}`}
              {...props}
              {...piece}
            />
          ))}
          {device.foreign_memory_bytes > 0 && <ForeignRow {...props} />}
        </ul>
      )}
    </li>
  );
}

export function SimulatedBadge(props: {
  trans: TranslationBundle;
}): JSX.Element {
  const { trans } = props;
  return (
    <span
      className="jp-AIStack-badge jp-mod-simulated"
      title={trans.__('Nothing real stands behind it')}
    >
      {trans.__('simulated')}
    </span>
  );
}

export function Warning(props: { text: string }): JSX.Element {
  return (
    <p className="jp-AIStack-warning">
      <span aria-hidden="true">⚠ </span>
      {props.text}
    </p>
  );
}

export function deviceTitle(device: IDevice, trans: TranslationBundle): string {
  return device.kind === 'gpu'
    ? trans.__('GPU %1', device.index)
    : trans.__('CPU');
}

/** The parts of a device's bar: slices by age, then strangers, then what is free. */
export function segments(
  props: Pick<IDeviceProps, 'device' | 'leases' | 'kernelId' | 'trans'>
): ISegment[] {
  const { device, leases, kernelId, trans } = props;
  const taken: ISegment[] = piecesOn(device, leases).map(
    ({ lease, slice }) => ({
      key: `${lease.id}:${slice.uuid}`,
      kind: isOwn(lease.holder, kernelId) ? 'own' : 'other',
      label: holderName(lease.holder),
      share: parseFraction(slice.fraction),
      text: slice.fraction,
      leaseId: lease.id
    })
  );
  const foreign = device.foreign_memory_bytes / (device.memory_bytes || 1);
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

/** What the server would still grant, which may be less than what nobody holds. */
function freeText(device: IDevice, trans: TranslationBundle): string {
  if (device.problem || parseFraction(device.free_fraction) === 0) {
    return trans.__('not available');
  }
  return device.free_fraction === '1'
    ? trans.__('free')
    : trans.__('%1 free', device.free_fraction);
}

/** Shares that add up to more than the device (strangers in a leased GPU) are drawn to scale with one another. */
function scaled(parts: ISegment[]): ISegment[] {
  const sum = Math.max(
    1,
    parts.reduce((total, part) => total + part.share, 0)
  );
  return parts.map(part => ({ ...part, share: part.share / sum }));
}

function piecesOn(device: IDevice, leases: readonly ILease[]): IPiece[] {
  return leases
    .filter(lease => lease.state !== 'ended')
    .flatMap(lease => lease.slices.map(slice => ({ lease, slice })))
    .filter(({ slice }) => slice.device_id === device.id)
    .sort((a, b) => a.lease.granted_at - b.lease.granted_at);
}

function Bar(props: {
  segments: ISegment[];
  title: string;
  trans: TranslationBundle;
}): JSX.Element {
  const parts = props.segments.map(spoken).join(', ');
  return (
    <div
      className="jp-AIStack-bar"
      role="img"
      aria-label={props.trans.__('%1: %2', props.title, parts)}
    >
      {props.segments.map(part => (
        <span
          key={part.key}
          className={`jp-AIStack-segment jp-mod-${part.kind}`}
          style={{ flexGrow: part.share }}
          title={spoken(part)}
          data-lease-id={part.leaseId}
        >
          {part.label}
        </span>
      ))}
    </div>
  );
}

function spoken(part: ISegment): string {
  return part.text ? `${part.label} ${part.text}` : part.label;
}

/** What the device as a whole uses; nothing where nothing is known. */
function DeviceUse(props: IDeviceProps): JSX.Element | null {
  const { device, trans } = props;
  const use = props.usage?.devices[device.id];
  if (!use) {
    return null;
  }
  const parts = [
    memoryText(use, device.memory_bytes, trans),
    utilisationText(use, trans)
  ];
  if (use.power_watts !== null) {
    parts.push(`${Math.round(use.power_watts)} W`);
  }
  return <p className="jp-AIStack-figures">{parts.join(' · ')}</p>;
}

function ForeignRow(props: IDeviceProps): JSX.Element {
  const { device, trans } = props;
  return (
    <li
      className="jp-AIStack-foreign"
      title={trans.__('Processes that use the device without having asked')}
    >
      <div className="jp-AIStack-sliceHead">
        <span className="jp-AIStack-swatch" aria-hidden="true" />
        <span className="jp-AIStack-sliceName">
          {trans.__('others, without a lease')}
        </span>
        <span className="jp-AIStack-sliceSize">
          {formatBytes(device.foreign_memory_bytes)}
        </span>
      </div>
    </li>
  );
}

function SliceRow(props: IDeviceProps & IPiece): JSX.Element {
  const { lease, slice, trans } = props;
  const own = isOwn(lease.holder, props.kernelId);
  const name = holderName(lease.holder);
  return (
    <li
      className={`jp-AIStack-slice ${own ? 'jp-mod-own' : 'jp-mod-other'}`}
      data-lease-id={lease.id}
    >
      <div className="jp-AIStack-sliceHead">
        <span className="jp-AIStack-swatch" aria-hidden="true" />
        <span
          className="jp-AIStack-sliceName"
          title={`${lease.holder.label || lease.holder.id} (${lease.holder.user})`}
        >
          {name}
        </span>
        {own && <span className="jp-AIStack-badge">{trans.__('yours')}</span>}
        {lease.enforced_by === 'simulated' && !props.device.simulated && (
          <SimulatedBadge trans={trans} />
        )}
        <span className="jp-AIStack-sliceSize">
          {slice.profile || slice.fraction}
        </span>
      </div>
      <SliceUse {...props} name={name} />
    </li>
  );
}

function SliceUse(
  props: IDeviceProps & IPiece & { name: string }
): JSX.Element {
  const { lease, slice, trans } = props;
  const use = useOf(lease, props.usage);
  const memory = memoryText(use, slice.memory_bytes, trans);
  const age = formatDuration(props.now - lease.granted_at);
  const utilisation = utilisationText(use, trans);
  return (
    <>
      <MemoryMeter
        label={trans.__('Memory of %1', props.name)}
        text={memory}
        used={use.memory_bytes}
        total={slice.memory_bytes}
      />
      <p className="jp-AIStack-figures">
        <span title={trans.__('Memory used of the slice')}>{memory}</span>
        {' · '}
        <span title={trans.__('Utilisation')}>{utilisation}</span>
        {' · '}
        <span title={trans.__('Held since')}>{age}</span>
      </p>
    </>
  );
}

const UNKNOWN: IUse = {
  memory_bytes: null,
  utilization: null,
  power_watts: null,
  energy_joules: null
};

/** The use of a lease on one device; of a lease on several we only know the sum, which belongs to none of them. */
function useOf(lease: ILease, usage: IUsage | null): IUse {
  const use = usage?.leases[lease.id];
  return use && lease.slices.length === 1 ? use : UNKNOWN;
}

export function MemoryMeter(props: {
  label: string;
  text: string;
  used: number | null;
  total: number;
}): JSX.Element | null {
  const { used, total } = props;
  if (used === null || total <= 0) {
    return null;
  }
  const share = Math.min(1, used / total);
  return (
    <div
      className={`jp-AIStack-meter${used > total ? ' jp-mod-over' : ''}`}
      role="meter"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={total}
      aria-valuenow={Math.min(used, total)}
      aria-valuetext={props.text}
    >
      <span style={{ width: `${share * 100}%` }} />
    </div>
  );
}

export function memoryText(
  use: IUse,
  total: number,
  trans: TranslationBundle
): string {
  return use.memory_bytes === null
    ? trans.__('n/a of %1', formatBytes(total))
    : formatBytesOf(use.memory_bytes, total);
}

function utilisationText(use: IUse, trans: TranslationBundle): string {
  return formatPercent(use.utilization) ?? trans.__('n/a');
}
