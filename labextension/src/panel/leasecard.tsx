import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { shareText, usableBytes } from '../text/ceiling';
import { conditionOf } from '../text/condition';
import {
  displayStateText,
  isOffDevice,
  isSuspendable,
  type SuspendableLease
} from '../text/devicestate';
import { deviceTitle, formatDuration, sliceMemoryText } from '../text/format';
import { idleText } from '../text/idle';
import { isSimulated, stateText } from '../text/lease';
import { exactTimeLeft, noticeText } from '../text/notice';
import type { IUsageSummary, ILease, IUsage } from '../wire/types';
import { DisplayStateBadge, IdleBadge, SimulatedBadge } from './badges';
import { Conditions } from './conditions';
import { Energy } from './energy';
import { LeaseButtons, type ILeaseButtonsProps } from './leasebuttons';
import { MemoryMeter } from './meter';
import { Ticking } from './tick';

export interface ILeaseCardProps extends ILeaseButtonsProps {
  /** What a kernel has used, as recorded by the server. */
  usageSummary: (kernelId: string) => Promise<IUsageSummary>;
  usage: IUsage | null;
  /** Seconds since the epoch by the server's clock. */
  clock: () => number;
}

/** What the kernel of the notebook in front holds. */
export function LeaseCard(props: ILeaseCardProps): JSX.Element {
  const { lease, trans } = props;
  return (
    <div className="jp-AIStack-card jp-mod-lease" data-lease-id={lease.id}>
      <div className="jp-AIStack-cardHead">
        <span className="jp-AIStack-size">{lease.spec}</span>
        <span className="jp-AIStack-where">{devicesText(props)}</span>
        {isSimulated(lease, props.host) && <SimulatedBadge trans={trans} />}
      </div>
      <p className="jp-AIStack-figures">{modelText(props)}</p>
      <Conditions lease={lease} trans={trans} />
      <NoticeBanner {...props} />
      {isSuspendable(lease) && <DisplayStateLine {...props} lease={lease} />}
      {!isOffDevice(lease) && <Memory {...props} />}
      <Facts {...props} />
      <LeaseButtons {...props} />
    </div>
  );
}

/** The state of its device memory, to the second while it waits. */
function DisplayStateLine(
  props: ILeaseCardProps & { lease: SuspendableLease }
): JSX.Element {
  const { clock, lease, trans } = props;
  const { standing } = lease.residence;
  return (
    <div className={`jp-AIStack-standingLine jp-mod-${standing}`}>
      <DisplayStateBadge
        standing={standing}
        text={displayStateText(lease, clock(), trans)}
        trans={trans}
      />
      <Ticking
        className="jp-AIStack-standingText"
        clock={clock}
        text={now => displayStateText(lease, now, trans)}
      />
    </div>
  );
}

function Memory(props: ILeaseCardProps): JSX.Element | null {
  const { lease, trans, usage } = props;
  const total = lease.slices.reduce((sum, s) => sum + usableBytes(lease, s), 0);
  const use = usage?.leases[lease.id];
  if (!use) {
    return null;
  }
  const memory = sliceMemoryText(use, total, trans);
  return (
    <>
      <MemoryMeter
        label={trans.__('Memory of your slice')}
        text={memory}
        used={use.memory_bytes}
        total={total}
      />
      <p className="jp-AIStack-figures">{memory}</p>
    </>
  );
}

function Facts(props: ILeaseCardProps): JSX.Element {
  const { usageSummary, lease, trans } = props;
  return (
    <dl className="jp-AIStack-facts">
      <State {...props} />
      <Share {...props} />
      <dt>{trans.__('Enforced by')}</dt>
      <dd>{lease.enforcement || trans.__('not known yet')}</dd>
      <dt>{trans.__('Verified')}</dt>
      <dd>
        <Verified lease={lease} trans={trans} />
      </dd>
      <dt>{trans.__('Time left')}</dt>
      <dd className="jp-AIStack-timeLeft">{timeLeft(props)}</dd>
      <Energy usageSummary={usageSummary} lease={lease} trans={trans} />
      {lease.preemptible && (
        <>
          <dt>{trans.__('Preemptible')}</dt>
          <dd>{trans.__('yes, by higher-priority requests')}</dd>
        </>
      )}
    </dl>
  );
}

/** What it may use of its devices now; nothing for a lease without a ceiling. */
function Share(props: ILeaseCardProps): JSX.Element | null {
  const { lease, trans } = props;
  const shares = lease.slices
    .filter(slice =>
      lease.limits.some(({ device_id }) => device_id === slice.device_id)
    )
    .map(slice => shareText(lease, slice, trans));
  return shares.length === 0 ? null : (
    <>
      <dt>{trans.__('Share')}</dt>
      <dd className="jp-AIStack-share">{shares.join('; ')}</dd>
    </>
  );
}

/** When it will be reclaimed or preempted, counting down; nothing without such a notice. */
function NoticeBanner(props: ILeaseCardProps): JSX.Element | null {
  const { clock, lease, trans } = props;
  const { notice } = lease;
  return notice === null ? null : (
    <Ticking
      className={`jp-AIStack-notice jp-mod-${notice.kind}`}
      clock={clock}
      text={now =>
        noticeText(lease, notice, exactTimeLeft(notice, now, trans), trans)
      }
    />
  );
}

/** For how long it has been idle, else its state; nothing where the state of its memory is shown instead. */
function State(props: ILeaseCardProps): JSX.Element | null {
  const { clock, host, lease, trans } = props;
  const idle = idleText(lease, host, clock(), trans);
  if (idle === '' && lease.residence) {
    return null;
  }
  return (
    <>
      <dt>{trans.__('State')}</dt>
      <dd>
        {idle === '' ? (
          stateText(lease.state, trans)
        ) : (
          <IdleBadge text={idle} trans={trans} />
        )}
      </dd>
    </>
  );
}

function Verified(props: {
  lease: ILease;
  trans: TranslationBundle;
}): JSX.Element {
  const { lease, trans } = props;
  if (lease.verified === null) {
    const reason = conditionOf(lease, 'NotVerified')?.message;
    return <span>{reason || trans.__('not yet')}</span>;
  }
  return lease.verified ? (
    <span className="jp-AIStack-verified">
      <span aria-hidden="true">✓ </span>
      {trans.__('from inside')}
    </span>
  ) : (
    <span className="jp-AIStack-unverified">
      <span aria-hidden="true">⚠ </span>
      {trans.__('not as granted')}
    </span>
  );
}

/** Which devices the lease is on. */
function devicesText(props: ILeaseCardProps): string {
  const { host, lease, trans } = props;
  const names = lease.slices.map(slice => {
    const device = host.devices.find(({ id }) => id === slice.device_id);
    return device ? deviceTitle(device, trans) : slice.device_id;
  });
  return trans.__('on %1', names.join(', '));
}

/** What these devices are, each model once. */
function modelText(props: ILeaseCardProps): string {
  const ids = props.lease.slices.map(slice => slice.device_id);
  const models = props.host.devices
    .filter(device => ids.includes(device.id))
    .map(device => device.name);
  return Array.from(new Set(models)).join(', ');
}

/** Until its end, or until it is reclaimed or preempted if that comes first. */
function timeLeft(props: ILeaseCardProps): string {
  const { clock, lease, trans } = props;
  const ends = [lease.ends_at, lease.notice?.ends_at ?? null].filter(
    end => end !== null
  );
  return ends.length === 0
    ? trans.__('no end')
    : formatDuration(Math.min(...ends) - clock());
}
