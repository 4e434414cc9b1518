import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { suspendSupportText } from '../text/devicestate';
import type { IHost } from '../wire/types';
import { SimulatedBadge } from './badges';

export interface IHostHeaderProps {
  host: IHost;
  /** There is no live connection. */
  isPolling: boolean;
  refresh: () => void;
  trans: TranslationBundle;
}

/** Which host it is, and what holds for all of it. */
export function HostHeader(props: IHostHeaderProps): JSX.Element {
  const { host, isPolling, trans } = props;
  return (
    <header className="jp-AIStack-header">
      <div className="jp-AIStack-head">
        <h2 className="jp-AIStack-host" title={host.host}>
          {host.host}
        </h2>
        {host.simulated && <SimulatedBadge trans={trans} />}
        {isPolling && <PollingBadge trans={trans} />}
        <button
          className="jp-AIStack-iconButton"
          title={trans.__('Refresh')}
          aria-label={trans.__('Refresh')}
          onClick={() => props.refresh()}
        >
          <RefreshIcon />
        </button>
      </div>
      {host.suspend && (
        <p className="jp-AIStack-suspension">
          {suspendSupportText(host.suspend, trans)}
        </p>
      )}
    </header>
  );
}

function PollingBadge(props: { trans: TranslationBundle }): JSX.Element {
  const { trans } = props;
  return (
    <span
      className="jp-AIStack-badge jp-mod-polling"
      title={trans.__(
        'No live connection; the server is asked every few seconds'
      )}
    >
      {trans.__('polling')}
    </span>
  );
}

function RefreshIcon(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" width="16" height="16" aria-hidden="true">
      <path d="M17.65 6.35A8 8 0 1 0 19.73 14h-2.08A6 6 0 1 1 12 6c1.66 0 3.14.69 4.22 1.78L13 11h7V4z" />
    </svg>
  );
}
