import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { formatSince, healthTitle, severityTitle } from '../text/health';
import type { IDevice, IHealthCondition } from '../wire/types';

export interface IHealthListProps {
  device: IDevice;
  /** Seconds since the epoch by the server's clock. */
  now: number;
  trans: TranslationBundle;
}

/** What is to be known of the health of a device, the gravest first; nothing where it is well. */
export function HealthList(props: IHealthListProps): JSX.Element | null {
  const { device, now, trans } = props;
  return device.conditions.length === 0 ? null : (
    <ul className="jp-AIStack-health" aria-label={trans.__('Health')}>
      {device.conditions.map(condition => (
        <HealthRow
          key={condition.code}
          condition={condition}
          now={now}
          trans={trans}
        />
      ))}
    </ul>
  );
}

/** The sentences of errors are in the device's problem already. */
function HealthRow(props: {
  condition: IHealthCondition;
  now: number;
  trans: TranslationBundle;
}): JSX.Element {
  const { condition, now, trans } = props;
  const { code, severity, message, since } = condition;
  return (
    <li className={`jp-mod-${severity}`} data-health-code={code}>
      <span className="jp-AIStack-badge">{severityTitle(severity, trans)}</span>{' '}
      <span title={message}>{healthTitle(code, trans)}</span>{' '}
      <span className="jp-AIStack-healthSince">
        {formatSince(since, now, trans)}
      </span>
      {severity !== 'error' && <p>{message}</p>}
    </li>
  );
}
