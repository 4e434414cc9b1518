import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { deviceTitle } from './device';
import { formatDuration, holderName } from './format';
import { idleText } from './idle';
import { etaText, isSimulated, positionText, stateText } from './leasetext';
import { IdleBadge, SimulatedBadge, Warning } from './marks';
import { MemoryMeter, memoryText } from './meter';
import { canExtend, exactLeft, extendText, noticeText } from './notice';
import type { IPanelActions } from './panelactions';
import { Ticking } from './tick';
import type { IHost, ILease, IRequest, IUsage } from './wire';

export interface IMySliceProps {
  actions: IPanelActions;
  /** By how much the Extend button moves the end. */
  extendSeconds: number;
  host: IHost;
  /** The notebook's kernel; null when there is none. */
  kernelId: string | null;
  lease: ILease | null;
  request: IRequest | null;
  /** Leases that the kernel's workers and runs hold. */
  workers: readonly ILease[];
  usage: IUsage | null;
  /** Seconds since the epoch by the server's clock. */
  clock: () => number;
  /** The data is fresh enough to act upon. */
  online: boolean;
  trans: TranslationBundle;
}

/** What the kernel of the notebook in front holds, waits for, or may ask for. */
export function MySlice(props: IMySliceProps): JSX.Element {
  const { lease, request } = props;
  return (
    <>
      {lease && <LeaseCard {...props} lease={lease} />}
      {request && <WaitingCard {...props} request={request} />}
      {!lease && !request && <NoSlice {...props} />}
      {props.workers.length > 0 && <Workers {...props} />}
    </>
  );
}

function LeaseCard(props: IMySliceProps & { lease: ILease }): JSX.Element {
  const { lease, trans, usage } = props;
  const total = lease.slices.reduce((sum, s) => sum + s.memory_bytes, 0);
  const use = usage?.leases[lease.id];
  const memory = use && memoryText(use, total, trans);
  return (
    <div className="jp-AIStack-card jp-mod-lease" data-lease-id={lease.id}>
      <div className="jp-AIStack-cardHead">
        <span className="jp-AIStack-size">{lease.spec}</span>
        <span className="jp-AIStack-where">{whereText(props)}</span>
        {isSimulated(lease, props.host) && <SimulatedBadge trans={trans} />}
      </div>
      <p className="jp-AIStack-figures">{modelText(props)}</p>
      <NoticeBanner {...props} />
      {use && memory && (
        <>
          <MemoryMeter
            label={trans.__('Memory of your slice')}
            text={memory}
            used={use.memory_bytes}
            total={total}
          />
          <p className="jp-AIStack-figures">{memory}</p>
        </>
      )}
      <dl className="jp-AIStack-facts">
        <dt>{trans.__('State')}</dt>
        <dd>
          <LeaseStateText {...props} />
        </dd>
        <dt>{trans.__('Enforced by')}</dt>
        <dd>{lease.enforcement || trans.__('not known yet')}</dd>
        <dt>{trans.__('Verified')}</dt>
        <dd>
          <Verified lease={lease} trans={trans} />
        </dd>
        <dt>{trans.__('Time left')}</dt>
        <dd className="jp-AIStack-timeLeft">{timeLeft(props)}</dd>
        {lease.preemptible && (
          <>
            <dt>{trans.__('May end early')}</dt>
            <dd>{trans.__('yes, for those who go first')}</dd>
          </>
        )}
      </dl>
      {lease.note && lease.verified !== null && <Warning text={lease.note} />}
      <LeaseButtons {...props} />
    </div>
  );
}

/** That it will be taken back, counting down; nothing while nobody wants it back. */
function NoticeBanner(
  props: IMySliceProps & { lease: ILease }
): JSX.Element | null {
  const { clock, lease, trans } = props;
  const { notice } = lease;
  return notice === null ? null : (
    <Ticking
      className={`jp-AIStack-notice jp-mod-${notice.kind}`}
      clock={clock}
      text={now =>
        noticeText(lease, notice, exactLeft(notice, now, trans), trans)
      }
    />
  );
}

function LeaseStateText(props: IMySliceProps & { lease: ILease }): JSX.Element {
  const { clock, host, lease, trans } = props;
  const idle = idleText(lease, host, clock(), trans);
  return idle === '' ? (
    <>{stateText(lease.state, trans)}</>
  ) : (
    <IdleBadge text={idle} trans={trans} />
  );
}

function LeaseButtons(props: IMySliceProps & { lease: ILease }): JSX.Element {
  const { actions, lease, online, trans } = props;
  return (
    <div className="jp-AIStack-buttons">
      <button
        className={`jp-AIStack-button${lease.notice?.kind === 'idle' ? ' jp-mod-accept' : ''}`}
        disabled={!online || !canExtend(lease)}
        title={extendText(lease, props.extendSeconds, trans)}
        onClick={() => actions.extend(lease.id)}
      >
        {trans.__('Extend')}
      </button>
      <button
        className="jp-AIStack-button jp-mod-warn"
        disabled={!online}
        title={trans.__('Give the slice back')}
        onClick={() => actions.release(lease.id)}
      >
        {trans.__('Release')}
      </button>
    </div>
  );
}

function WaitingCard(
  props: IMySliceProps & { request: IRequest }
): JSX.Element {
  const { actions, request, online, trans } = props;
  return (
    <div
      className="jp-AIStack-card jp-mod-waiting"
      data-request-id={request.id}
    >
      <div className="jp-AIStack-cardHead">
        <span className="jp-AIStack-size">{request.spec}</span>
        <span className="jp-AIStack-where">{positionText(request, trans)}</span>
      </div>
      <Ticking
        className="jp-AIStack-eta"
        clock={props.clock}
        text={now => etaText(request, now, trans)}
      />
      {request.reason && <p className="jp-AIStack-reason">{request.reason}</p>}
      <div className="jp-AIStack-buttons">
        <button
          className="jp-AIStack-button"
          disabled={!online}
          title={trans.__('Stop waiting')}
          onClick={() => actions.cancel(request.id)}
        >
          {trans.__('Cancel')}
        </button>
      </div>
    </div>
  );
}

function NoSlice(props: IMySliceProps): JSX.Element {
  const { actions, kernelId, online, trans } = props;
  return (
    <div className="jp-AIStack-card jp-mod-empty">
      <p>
        {kernelId
          ? trans.__('This notebook has no slice of a device.')
          : trans.__('Open a notebook to request a slice for it.')}
      </p>
      <div className="jp-AIStack-buttons">
        <button
          className="jp-AIStack-button jp-mod-accept"
          disabled={!kernelId || !online}
          onClick={() => actions.request()}
        >
          {trans.__('Request…')}
        </button>
      </div>
    </div>
  );
}

function Workers(props: IMySliceProps): JSX.Element {
  const { actions, workers, online, trans } = props;
  return (
    <ul
      className="jp-AIStack-workers"
      aria-label={trans.__('Slices of its workers and runs')}
    >
      {workers.map(lease => (
        <li key={lease.id} className="jp-AIStack-worker">
          <span className="jp-AIStack-sliceName" title={lease.holder.id}>
            {holderName(lease.holder)}
          </span>
          <span className="jp-AIStack-sliceSize">{lease.spec}</span>
          <button
            className="jp-AIStack-button jp-mod-small"
            disabled={!online}
            aria-label={trans.__('Release %1', holderName(lease.holder))}
            onClick={() => actions.release(lease.id)}
          >
            {trans.__('Release')}
          </button>
        </li>
      ))}
    </ul>
  );
}

function Verified(props: {
  lease: ILease;
  trans: TranslationBundle;
}): JSX.Element {
  const { lease, trans } = props;
  if (lease.verified === null) {
    // What was not verified is no reason to warn, but the note says why.
    return <span>{lease.note || trans.__('not yet')}</span>;
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
function whereText(props: IMySliceProps & { lease: ILease }): string {
  const { host, lease, trans } = props;
  const names = lease.slices.map(slice => {
    const device = host.devices.find(({ id }) => id === slice.device_id);
    return device ? deviceTitle(device, trans) : slice.device_id;
  });
  return trans.__('on %1', names.join(', '));
}

/** What these devices are, each model once. */
function modelText(props: IMySliceProps & { lease: ILease }): string {
  const ids = props.lease.slices.map(slice => slice.device_id);
  const models = props.host.devices
    .filter(device => ids.includes(device.id))
    .map(device => device.name);
  return Array.from(new Set(models)).join(', ');
}

/** Until whichever comes first: its end, or that it is taken back. */
function timeLeft(props: IMySliceProps & { lease: ILease }): string {
  const { clock, lease, trans } = props;
  const ends = [lease.ends_at, lease.notice?.ends_at ?? null].filter(
    end => end !== null
  );
  return ends.length === 0
    ? trans.__('no end')
    : formatDuration(Math.min(...ends) - clock());
}
