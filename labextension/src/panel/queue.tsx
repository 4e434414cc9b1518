import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IPanelActions } from '../commands/panelactions';
import { holderName } from '../text/format';
import { etaText } from '../text/lease';
import { isOwn } from '../text/ownership';
import type { IRequest } from '../wire/types';
import { Ticking } from './tick';

export interface IQueueProps {
  actions: IPanelActions;
  queue: readonly IRequest[];
  /** The notebook's kernel, whose requests can be cancelled here; null when there is none. */
  kernelId: string | null;
  /** Seconds since the epoch by the server's clock. */
  clock: () => number;
  /** The data is fresh enough to act upon. */
  online: boolean;
  trans: TranslationBundle;
}

/** Who waits, first served first. */
export function Queue(props: IQueueProps): JSX.Element {
  const { queue, trans } = props;
  if (queue.length === 0) {
    return (
      <p className="jp-AIStack-empty">{trans.__('No requests are waiting.')}</p>
    );
  }
  return (
    <ol className="jp-AIStack-queue">
      {queue.map(request => (
        <QueueItem key={request.id} {...props} request={request} />
      ))}
    </ol>
  );
}

function QueueItem(props: IQueueProps & { request: IRequest }): JSX.Element {
  const { actions, request, trans } = props;
  const name = holderName(request.holder);
  return (
    <li className="jp-AIStack-queueItem" data-request-id={request.id}>
      <span className="jp-AIStack-position">{request.position ?? '–'}</span>
      <span className="jp-AIStack-sliceName" title={request.holder.label}>
        {name}
      </span>
      <span className="jp-AIStack-sliceSize">{request.spec}</span>
      <p className="jp-AIStack-reason">
        {[request.holder.user, request.reason].filter(Boolean).join(' · ')}
      </p>
      <Ticking
        className="jp-AIStack-eta"
        clock={props.clock}
        text={now => etaText(request, now, trans)}
      />
      {isOwn(request.holder, props.kernelId) && (
        <button
          className="jp-AIStack-button jp-mod-small"
          disabled={!props.online}
          aria-label={trans.__('Cancel the request of %1', name)}
          onClick={() => actions.cancel(request.id)}
        >
          {trans.__('Cancel')}
        </button>
      )}
    </li>
  );
}
