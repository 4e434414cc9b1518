import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { shareText, usableBytes } from '../text/ceiling';
import {
  displayStateText,
  isOffDevice,
  isSuspendable,
  type SuspendableLease
} from '../text/devicestate';
import {
  formatDuration,
  holderName,
  sliceMemoryText,
  utilisationText
} from '../text/format';
import { idleText } from '../text/idle';
import { isOwn } from '../text/ownership';
import type {
  DisplayState,
  IDevice,
  IHost,
  ILease,
  IUsage,
  IUse
} from '../wire/types';
import { DisplayStateBadge, IdleBadge, SimulatedBadge } from './badges';
import { ErrorBadges } from './conditions';
import { MemoryMeter } from './meter';
import type { ISliceOnDevice } from './segments';

export interface ISliceRowProps extends ISliceOnDevice {
  device: IDevice;
  host: IHost;
  usage: IUsage | null;
  kernelId: string | null;
  /** Seconds since the epoch by the server's clock. */
  now: number;
  trans: TranslationBundle;
}

/** A slice of a device: whose it is, and what it uses. */
export function SliceRow(props: ISliceRowProps): JSX.Element {
  const { lease, slice, trans } = props;
  const own = isOwn(lease.holder, props.kernelId);
  const name = holderName(lease.holder);
  return (
    <li
      className={`jp-AIStack-slice ${own ? 'jp-mod-own' : 'jp-mod-other'}${isOffDevice(lease) ? ' jp-mod-away' : ''}`}
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
          {slice.profile || shareText(lease, slice, trans)}
        </span>
      </div>
      {isOffDevice(lease) ? null : <SliceUse {...props} name={name} />}
      {isSuspendable(lease) && <SliceDisplayState {...props} lease={lease} />}
      <ErrorBadges lease={lease} trans={trans} />
    </li>
  );
}

/** The other states, in words. */
function SliceDisplayState(
  props: ISliceRowProps & { lease: SuspendableLease }
): JSX.Element | null {
  const { lease, now, trans } = props;
  const { standing } = lease.residence;
  const text = displayStateText(lease, now, trans);
  return isPlain(standing) ? null : (
    <p className="jp-AIStack-figures">
      <DisplayStateBadge standing={standing} text={text} trans={trans} /> {text}
    </p>
  );
}

/** The ordinary states: a badge beside the figures, with the words for screen readers only. */
function PlainDisplayState(props: ISliceRowProps): JSX.Element | null {
  const { lease, now, trans } = props;
  if (!isSuspendable(lease) || !isPlain(lease.residence.standing)) {
    return null;
  }
  const { standing } = lease.residence;
  const text = displayStateText(lease, now, trans);
  return (
    <>
      <DisplayStateBadge standing={standing} text={text} trans={trans} />
      <span className="jp-AIStack-spoken">{text}</span>
    </>
  );
}

function isPlain(standing: DisplayState): boolean {
  return standing === 'held' || standing === 'warm';
}

function SliceUse(props: ISliceRowProps & { name: string }): JSX.Element {
  const { lease, slice, trans } = props;
  const use = useOf(lease, props.usage);
  const total = usableBytes(lease, slice);
  const memory = sliceMemoryText(use, total, trans);
  const age = formatDuration(props.now - lease.granted_at);
  const utilisation = utilisationText(use, trans);
  return (
    <>
      <MemoryMeter
        label={trans.__('Memory of %1', props.name)}
        text={memory}
        used={use.memory_bytes}
        total={total}
      />
      <p className="jp-AIStack-figures">
        <span title={trans.__('Memory used of the slice')}>{memory}</span>
        {' · '}
        <span title={trans.__('Utilisation')}>{utilisation}</span>
        {' · '}
        <span title={trans.__('Held since')}>{age}</span>
        <IdleBadge
          text={idleText(lease, props.host, props.now, trans)}
          trans={trans}
        />
        <PlainDisplayState {...props} />
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

/** What a lease uses on a device; of a lease on several devices only the sum is known, which is that of none of them. */
function useOf(lease: ILease, usage: IUsage | null): IUse {
  const use = usage?.leases[lease.id];
  return use && lease.slices.length === 1 ? use : UNKNOWN;
}
