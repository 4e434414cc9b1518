import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { strayFigures, strayName } from '../text/stray';
import type { IDevice, IStray } from '../wire/types';

export interface IStrayListProps {
  device: IDevice;
  /** All of the host; those on other devices are left out here. */
  strays: readonly IStray[];
  /** Seconds since the epoch by the server's clock. */
  now: number;
  trans: TranslationBundle;
}

/** The processes that use a device without a lease, the user's own first; nothing where there are none. */
export function StrayList(props: IStrayListProps): JSX.Element | null {
  const { device, now, trans } = props;
  const strays = props.strays
    .filter(({ device_id }) => device_id === device.id)
    .sort((a, b) => Number(b.is_own) - Number(a.is_own));
  return strays.length === 0 ? null : (
    <ul
      className="jp-AIStack-strays"
      aria-label={trans.__('Processes without a lease')}
    >
      {strays.map((stray, place) => (
        <StrayRow
          key={stray.pid ?? `unknown-${place}`}
          stray={stray}
          now={now}
          trans={trans}
        />
      ))}
    </ul>
  );
}

function StrayRow(props: {
  stray: IStray;
  now: number;
  trans: TranslationBundle;
}): JSX.Element {
  const { now, stray, trans } = props;
  const user = stray.user || trans.__('unknown user');
  return (
    <li className="jp-AIStack-stray" data-pid={stray.pid}>
      <span className="jp-AIStack-strayName">{strayName(stray, trans)}</span>{' '}
      <span className="jp-AIStack-strayUser">
        {stray.is_own ? trans.__('yours') : user}
      </span>{' '}
      <span className="jp-AIStack-figures">
        {strayFigures(stray, now, trans)}
      </span>
    </li>
  );
}
