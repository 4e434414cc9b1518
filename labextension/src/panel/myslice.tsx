import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IPanelActions } from '../commands/panelactions';
import { holderName } from '../text/format';
import { etaText, positionText } from '../text/lease';
import type {
  IUsageSummary,
  IHost,
  ILease,
  IRequest,
  IUsage
} from '../wire/types';
import { LeaseCard } from './leasecard';
import { Ticking } from './tick';

export interface IMySliceProps {
  actions: IPanelActions;
  /** What a kernel has used, as recorded by the server. */
  usageSummary: (kernelId: string) => Promise<IUsageSummary>;
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
