import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IPanelActions } from '../commands/panelactions';
import { drainText, mayDrain } from '../text/drain';
import type { IDevice, IHost } from '../wire/types';

export interface IDrainLineProps {
  actions: Pick<IPanelActions, 'drain' | 'undrain'>;
  device: IDevice;
  host: IHost;
  /** Seconds since the epoch by the server's clock. */
  now: number;
  /** The data is fresh enough to act upon. */
  online: boolean;
  trans: TranslationBundle;
}

/** That nothing new is granted on a device, until when and why; for operators a button that changes it. */
export function DrainLine(props: IDrainLineProps): JSX.Element | null {
  const { device, host, now, trans } = props;
  if (device.drain === null && !mayDrain(host)) {
    return null;
  }
  return (
    <p className="jp-AIStack-drain" data-drained={device.drain !== null}>
      {device.drain !== null && (
        <span
          className="jp-AIStack-drainText"
          title={trans.__(
            'Nothing new is granted on it; what is leased there goes on'
          )}
        >
          {drainText(device.drain, now, trans)}
        </span>
      )}
      {mayDrain(host) && <DrainButton {...props} />}
    </p>
  );
}

function DrainButton(props: IDrainLineProps): JSX.Element {
  const { actions, device, online, trans } = props;
  const act = device.drain === null ? actions.drain : actions.undrain;
  return (
    <button
      className="jp-AIStack-button jp-mod-small"
      disabled={!online}
      title={
        device.drain === null
          ? trans.__('Grant nothing new on it; what is leased there goes on')
          : trans.__('Let it be granted again')
      }
      onClick={() => act(device.id)}
    >
      {device.drain === null ? trans.__('Drain…') : trans.__('Undrain')}
    </button>
  );
}
